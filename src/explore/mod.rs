//! Plans, samplers, the parallel executor, resume journal and progress.
