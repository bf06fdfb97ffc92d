//! Where something listens: an address and a port, or nowhere.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::value::{Given, Refusal, Setting, invalid, text};
use crate::error::{Error, ErrorKind};

/// Where something listens: `127.0.0.1:9464`. Nowhere if it is `""` or `"off"`. Port 0 is any that is free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listen(Option<SocketAddr>);

impl Listen {
    const ADVICE: &'static str = "write an address of this machine and a port, as in \"127.0.0.1:9464\"; \"0.0.0.0:9464\" \
                                  is every address of it, and \"\" turns it off";

    /// The address, if it listens at all.
    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }

    /// The address if other machines can reach it.
    pub fn beyond_this_machine(self) -> Option<SocketAddr> {
        self.0
            .filter(|address| !address.ip().to_canonical().is_loopback())
    }

    pub(super) fn is_nowhere(&self) -> bool {
        self.0.is_none()
    }

    /// An error completes a sentence about the text and says what to write.
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if matches!(text, "" | "off") {
            return Ok(Listen(None));
        }
        let local = text.strip_prefix("localhost:").map(str::parse);
        let address = match local {
            Some(Ok(port)) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            _ => text.parse(),
        };
        let refused = |_| format!("{text:?} is no address to listen on: {}", Self::ADVICE);
        address
            .map(|address| Listen(Some(address)))
            .map_err(refused)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Listen(Some(address))
    }
}

/// As the configuration has it.
impl FromStr for Listen {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).map_err(|why| Error::new(ErrorKind::Invalid, why))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Setting for Listen {
    fn read(given: Given<'_>) -> Result<Self, Refusal> {
        const EXPECTED: &str = "an address in quotes, as in \"127.0.0.1:9464\"";
        Self::parse(text(given, EXPECTED)?).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_port_or_nowhere() {
        let shown = |text: &str| text.parse::<Listen>().expect(text).to_string();
        assert_eq!(shown("127.0.0.1:9464"), "127.0.0.1:9464");
        assert_eq!(shown(" localhost:9464 "), "127.0.0.1:9464");
        assert_eq!(shown("[::1]:0"), "[::1]:0");
        assert_eq!((shown(""), shown("off")), (String::new(), String::new()));
        for wrong in [
            "9464",
            ":9464",
            "localhost",
            "localhost:x",
            "127.0.0.1",
            "host:9464",
            "127.0.0.1:99999",
        ] {
            let refused = wrong.parse::<Listen>().expect_err(wrong).to_string();
            assert!(refused.contains("write an address"), "{refused}");
        }
    }

    #[test]
    fn what_other_machines_can_reach() {
        for (text, reached) in [
            ("127.0.0.1:1", false),
            ("127.3.4.5:1", false),
            ("[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", false),
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("10.0.0.7:1", true),
            ("", false),
        ] {
            let listen: Listen = text.parse().expect(text);
            assert_eq!(listen.beyond_this_machine().is_some(), reached, "{text}");
        }
    }
}
