//! Tracks the presence of every device, and is the read side of the fleet.

pub mod presence;
