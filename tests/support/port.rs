//! Free ports of the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

/// Ports that were free a moment ago, in random order. Whoever takes one tries the next where
/// another process was faster.
///
/// All lie below the range from which systems pick the near ends of outgoing connections (from
/// 32768 on). Otherwise the port of a server that is stopped for a while could be given to any
/// client, even to the one that tries to reach the server: on the loopback interface it would then
/// be connected to itself.
pub fn free_ports() -> impl Iterator<Item = u16> {
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000))
        .take(200)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}
