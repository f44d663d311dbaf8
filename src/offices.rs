//! What the running gateway knows of its offices: names, policies, calendars. Read from the
//! database at start and again whenever a version there has grown.

use crate::{
    domain::{calendar::WorkingCalendar, id::OfficeId, policy::Policy},
    relay::GATHER_S,
    store::{self, StoreError},
};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretSlice;
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

/// One office as it stands.
#[derive(Debug)]
pub struct Office {
    /// Its id.
    pub id: OfficeId,
    /// Its short name in the configuration.
    pub code: String,
    /// Its name for people.
    pub name: String,
    /// Of its register numbers (R7.1).
    pub prefix: String,
    /// Its readings of the rules.
    pub policy: Policy,
    /// Its calendar.
    pub calendar: WorkingCalendar,
    /// That calendar's version, grows with each change.
    pub calendar_version: i32,
    /// Signs the links to its tickets.
    pub link_key: SecretSlice<u8>,
}

impl Office {
    /// From when the staff are told what can wait: at once while somebody is there, else at the next
    /// opening, where what came in meanwhile gathers into one digest.
    #[must_use]
    pub fn staff_told_from(&self, from: DateTime<Utc>) -> DateTime<Utc> {
        let opens = self.calendar.next_open(from).value;
        opens + TimeDelta::seconds(if opens > from { GATHER_S } else { 0 })
    }
}

/// All offices, shared and replaced as a whole.
#[derive(Debug, Default)]
pub struct Offices(RwLock<Arc<HashMap<OfficeId, Arc<Office>>>>);

impl Offices {
    /// The office with this id.
    #[must_use]
    pub fn get(&self, id: OfficeId) -> Option<Arc<Office>> {
        self.all().get(&id).cloned()
    }

    /// The office with this code.
    #[must_use]
    pub fn by_code(&self, code: &str) -> Option<Arc<Office>> {
        self.all().values().find(|office| office.code == code).cloned()
    }

    /// All of them as they stand now.
    #[must_use]
    pub fn all(&self) -> Arc<HashMap<OfficeId, Arc<Office>>> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads them again from the database.
    ///
    /// # Errors
    /// [`StoreError`]; the offices as known before stay in force.
    pub async fn reload(&self, db: &mut PgConnection) -> Result<(), StoreError> {
        let offices = store::office::load_all(db).await?;
        let offices = offices.into_iter().map(|office| (office.id, Arc::new(office))).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(offices);
        Ok(())
    }
}
