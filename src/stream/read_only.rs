//! Scripts that only read, called as such: a user who may not write may run them.

use redis::aio::ConnectionLike;
use redis::{Arg, Cmd, Pipeline, RedisFuture, Value};

/// A connection that calls scripts by EVALSHA_RO in place of EVALSHA: the server refuses every write of theirs.
pub(super) struct ReadOnly<'a, C>(pub &'a mut C);

impl<C: ConnectionLike + Send> ConnectionLike for ReadOnly<'_, C> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let first = command.args_iter().next();
        if !matches!(first, Some(Arg::Simple(b"EVALSHA"))) {
            return self.0.req_packed_command(command);
        }
        let mut reading = redis::cmd("EVALSHA_RO");
        for arg in command.args_iter().skip(1) {
            if let Arg::Simple(arg) = arg {
                reading.arg(arg);
            }
        }
        Box::pin(async move { self.0.req_packed_command(&reading).await })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.0.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.0.get_db()
    }
}
