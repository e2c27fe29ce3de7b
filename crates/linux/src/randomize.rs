//! The choice of source ports in source NAT.

/// How source ports are chosen for translated connections (`AWS_VPC_K8S_CNI_RANDOMIZESNAT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Randomize {
    /// Fully random; avoids most collisions between connections that begin at the same time.
    #[default]
    Prng,
    /// From a hash of the connection.
    Hashrandom,
    /// The pod's own port where it is free.
    None,
}
