//! What is counted, and how it is shown. [`table`] says what there is; [`snapshot`] is what it had come to at one time.
// Who records, sends and serves comes upon this.
#![allow(dead_code)]

pub(crate) mod histogram;
pub(crate) mod snapshot;
pub(crate) mod table;
