//! Faults built into the machine on purpose, in tests only: each must be caught by the simulation, or the simulation proves
//! nothing.

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "only tests name them"))]
pub(crate) enum Mutation {
    /// Yield to any claim, without asking the claimant.
    YieldUnverified,
    /// Take for dead who was never heard.
    DownFromUnknown,
    /// Take "alive, not holding" for no answer.
    AliveIsSilence,
    /// Do not tell who was away that it was, nor heed it.
    SkipWasDown,
    /// Claim without having heard anything.
    SkipHearing,
    /// Answer with the own hardware address while the address is handed over.
    OwnMacWhileCeding,
    /// The better placed node claims, whoever holds the address.
    RankNotIncumbency,
    /// Take an address when better nodes have not claimed it in time, not when they are down.
    StaggerNotEvidence,
    /// Do not vouch for others, nor heed it.
    SkipVouch,
    /// Do not ask the kernel: a silent speaker is a silent node.
    SkipKernel,
    /// Take a frame that echoes nothing of mine for an answer.
    SkipNonce,
    /// Do not look for a second holder when a peer returns.
    SkipChecks,
    /// Refuse nothing and forget when the last move was.
    SkipDamping,
    /// Do not yield to one that is deaf to me.
    SkipDeaf,
}
