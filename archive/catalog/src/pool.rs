//! Connections that read: a bounded number, made when first needed.

use crate::{
    error::{CatalogError, Step},
    schema,
};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use std::{
    ops::Deref,
    path::{Path, PathBuf},
};

pub(crate) struct Pool {
    path: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

struct State {
    idle: Vec<Connection>,
    unmade: usize,
}

/// A borrowed connection; it goes back when dropped.
pub(crate) struct Reader<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl Pool {
    pub(crate) fn new(path: &Path, readers_max: usize) -> Self {
        Self {
            path: path.to_path_buf(),
            state: Mutex::new(State { idle: Vec::new(), unmade: readers_max.max(1) }),
            returned: Condvar::new(),
        }
    }

    /// A connection, waiting for one if all are in use. Blocking.
    pub(crate) fn reader(&self) -> Result<Reader<'_>, CatalogError> {
        let mut state = self.state.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(Reader { pool: self, connection: Some(connection) });
            }
            if state.unmade > 0 {
                state.unmade -= 1;
                break;
            }
            self.returned.wait(&mut state);
        }
        drop(state);
        let made = Connection::open(&self.path).step("open a reader").and_then(|connection| {
            schema::open_reader(&connection)?;
            connection.set_prepared_statement_cache_capacity(64);
            Ok(connection)
        });
        match made {
            Ok(connection) => Ok(Reader { pool: self, connection: Some(connection) }),
            Err(error) => {
                self.state.lock().unmade += 1;
                self.returned.notify_one();
                Err(error)
            }
        }
    }
}

impl Deref for Reader<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        // Taken only by `drop`.
        self.connection.as_ref().unwrap_or_else(|| unreachable!("a reader holds its connection until it is dropped"))
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.state.lock().idle.push(connection);
            self.pool.returned.notify_one();
        }
    }
}
