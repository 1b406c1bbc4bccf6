//! Instants on PostgreSQL's wire.

use std::error::Error;

use bytes::BytesMut;
use jiff::Timestamp;

use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The first instant that PostgreSQL can keep, in microseconds since the Unix epoch: 4714 BC. Its last
/// is after jiff's.
const FIRST_MICROS: i64 = -210_866_803_200_000_000;

/// An instant in microseconds since the Unix epoch, as a `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Micros(pub(super) i64);

impl Micros {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.as_microsecond())
    }

    /// Whether PostgreSQL can keep it.
    pub(super) fn is_storable(self) -> bool {
        self.0 >= FIRST_MICROS
    }
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&(self.0 - EPOCH_MICROS).to_be_bytes());
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);
    to_sql_checked!();
}

impl FromSql<'_> for Micros {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(micros.saturating_add(EPOCH_MICROS)))
    }

    accepts!(TIMESTAMPTZ);
}
