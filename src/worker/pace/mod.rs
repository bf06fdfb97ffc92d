//! When each part of a worker asks Redis next. Pure: of the time, of what was heard, and of chance. So what a fleet of a
//! thousand workers comes to can be found out without one: the program in `simulate/` drives this very code.

pub mod due;
pub mod duty;
pub mod leases;
pub mod owning;
pub mod pulses;
pub mod reads;
pub mod reclaims;
pub mod relays;
pub mod tidying;
