//! One route: where it is, who may go there, and what is done.

use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodRouter, get, post};

use super::app::App;
use crate::config::Role;

/// A path with what it needs. The router is made from a list of these, and so is the test of all of them.
#[derive(Clone)]
pub(super) struct Route {
    #[cfg_attr(
        not(test),
        allow(dead_code, reason = "the test of all routes asks by it")
    )]
    pub method: Method,
    pub path: &'static str,
    pub needs: Role,
    pub scope: Scope,
    pub handler: MethodRouter<App>,
}

/// Of what a visitor needs the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Of any of the group's streams: the page shows those that the visitor may see.
    Any,
    /// Of the one that `?stream=` names.
    Stream,
    /// Of every stream of the group: it concerns them all.
    Every,
}

impl Route {
    /// A page.
    pub fn page<T: 'static>(
        path: &'static str,
        (needs, scope): (Role, Scope),
        handler: impl Handler<T, App>,
    ) -> Self {
        Route {
            method: Method::GET,
            path,
            needs,
            scope,
            handler: get(handler),
        }
    }

    /// A form's action.
    pub fn action<T: 'static>(
        path: &'static str,
        (needs, scope): (Role, Scope),
        handler: impl Handler<T, App>,
    ) -> Self {
        Route {
            method: Method::POST,
            path,
            needs,
            scope,
            handler: post(handler),
        }
    }
}
