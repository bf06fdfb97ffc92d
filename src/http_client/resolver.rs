//! Names as addresses that may be connected to. What is vetted is what is dialled: a name that is asked for once more may
//! lead elsewhere by then.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;

use super::vetting::{Forbidden, Vetting};

/// How names become addresses, if not as the system has it.
pub(crate) type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// Finds the addresses of a host, and leaves out those that must not be connected to.
#[derive(Clone)]
pub(super) struct Resolver {
    vetting: Option<Arc<Vetting>>,
    lookup: Option<Lookup>,
    system: GaiResolver,
}

impl Resolver {
    /// All addresses if there is no `vetting`.
    pub fn new(vetting: Option<Vetting>, lookup: Option<Lookup>) -> Self {
        Resolver {
            vetting: vetting.map(Arc::new),
            lookup,
            system: GaiResolver::new(),
        }
    }
}

type Found = io::Result<IntoIter<SocketAddr>>;

impl Service<Name> for Resolver {
    type Response = IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Found> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let vetting = self.vetting.clone();
        let found: Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> =
            match &self.lookup {
                Some(lookup) => {
                    let found = lookup(name.as_str());
                    let at = |address| SocketAddr::new(address, 0);
                    Box::pin(async move { Ok(found?.into_iter().map(at).collect()) })
                }
                None => {
                    let found = self.system.call(name);
                    Box::pin(async move { Ok(found.await?.collect()) })
                }
            };
        Box::pin(async move {
            let found = found.await?;
            match vetting {
                Some(vetting) => vetted(found, &vetting),
                None => Ok(found.into_iter()),
            }
        })
    }
}

/// Those that may be connected to; an error if there are some, and all of them must not be.
fn vetted(mut found: Vec<SocketAddr>, vetting: &Vetting) -> Found {
    let mut refused = None;
    found.retain(|address| match vetting.vet(address.ip()) {
        Ok(()) => true,
        Err(why) => {
            refused.get_or_insert(why);
            false
        }
    });
    match refused {
        Some(why) if found.is_empty() => Err(io::Error::other(Forbidden(why))),
        _ => Ok(found.into_iter()),
    }
}
