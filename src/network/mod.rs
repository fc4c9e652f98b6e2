//! What links and collectives cost between GPUs.
