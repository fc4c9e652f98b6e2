//! Policies: which replica gets a request ([`global`]) and what a replica puts
//! into its next batch ([`replica`]). Mechanism (queues, blocks, events) is the
//! simulator's; a policy only decides.

pub(crate) mod global;
pub(crate) mod replica;
