//! Whom notices are for, and who that is when they are sent (RD1.2, RD3.2, R7.e).

use crate::{
    domain::{
        id::{OfficeId, StaffId},
        level::Level,
        role::Role,
    },
    offices::Office,
    store::{
        self, StoreError,
        notice::Effect,
        office::{Contact, Duty},
    },
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Whom an effect concerns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Audience {
    /// Whoever is on duty when it is sent.
    Duty,
    /// The accountable person (R7.e).
    Person(i32),
    /// 带班领导: told of every rise.
    Lead,
    /// 中心班子: level 3.
    Leadership,
    /// 局党组: level 5.
    PartyGroup,
}

/// Whoever is on duty, as it is stored.
pub(super) const DUTY: &str = "duty";

/// Whether a stored audience is told to whoever is on duty.
pub(super) fn is_for_duty(audience: &str) -> bool {
    audience.split('!').next().unwrap_or_default().split('+').any(|one| one == DUTY)
}

impl Audience {
    fn stored(&self) -> String {
        match self {
            Self::Duty => DUTY.to_owned(),
            Self::Person(id) => format!("staff:{id}"),
            Self::Lead => "lead".to_owned(),
            Self::Leadership => "leadership".to_owned(),
            Self::PartyGroup => "party_group".to_owned(),
        }
    }

    fn read(text: &str) -> Self {
        match text {
            "lead" => Self::Lead,
            "leadership" => Self::Leadership,
            "party_group" => Self::PartyGroup,
            other => other
                .strip_prefix("staff:")
                .and_then(|id| id.parse().ok())
                .map_or(Self::Duty, Self::Person),
        }
    }
}

/// Effects by whom they concern, each group one notice. Audiences that are told the very same are
/// one group; one that is told less than another names it, so that who is in both is told once:
/// `duty+lead`, `leadership!lead`.
pub(super) fn group<'a>(office: &Office, effects: &'a [Effect]) -> Vec<(String, Vec<&'a Effect>)> {
    let mut of_audience: BTreeMap<(bool, Audience), Vec<&Effect>> = BTreeMap::new();
    for effect in effects {
        let mut audiences = audiences(office, effect);
        audiences.sort_unstable();
        audiences.dedup();
        for audience in audiences {
            of_audience.entry((!effect.urgent, audience)).or_default().push(effect);
        }
    }
    // By what is told; effects are in the order of their ids.
    let mut groups: Vec<(bool, Vec<Audience>, Vec<&Effect>)> = Vec::new();
    for ((ordinary, audience), told) in of_audience {
        match groups.iter_mut().find(|(o, _, same)| *o == ordinary && ids(same).eq(ids(&told))) {
            Some((_, audiences, _)) => audiences.push(audience),
            None => groups.push((ordinary, vec![audience], told)),
        }
    }
    let named = groups.iter().map(|(ordinary, audiences, told)| {
        let more = groups.iter().filter(|(o, _, more)| {
            o == ordinary
                && more.len() > told.len()
                && ids(told).all(|id| more.binary_search_by_key(&id, |effect| effect.id).is_ok())
        });
        let join = |audiences: &[Audience]| {
            audiences.iter().map(Audience::stored).collect::<Vec<_>>().join("+")
        };
        let mut name = join(audiences);
        for (_, also, _) in more {
            name.push('!');
            name.push_str(&join(also));
        }
        (name, told.clone())
    });
    named.collect()
}

fn ids<'a>(effects: &'a [&Effect]) -> impl Iterator<Item = i64> + use<'a> {
    effects.iter().map(|effect| effect.id)
}

/// What only the citizen is told: whoever did it knows.
const FOR_CITIZENS: [&str; 7] =
    ["claimed", "awaiting", "resumed", "resolved", "said", "spun_off", "joined"];

fn audiences(office: &Office, effect: &Effect) -> Vec<Audience> {
    if FOR_CITIZENS.contains(&effect.kind.as_str()) {
        return Vec::new();
    }
    let handler = effect.accountable.map_or(Audience::Duty, |id| Audience::Person(id.0));
    // Of the level that the effect speaks of: the ticket may have risen further since.
    let of_level = match effect.level {
        Level::PartyGroup => Audience::PartyGroup,
        Level::Leadership => Audience::Leadership,
        Level::Duty => handler.clone(),
    };
    let mut audiences = match effect.kind.as_str() {
        "raised" | "overdue" => vec![of_level, Audience::Lead],
        "limit_near" if effect.level == Level::Duty => vec![handler],
        "limit_near" => vec![of_level, handler],
        // Who answers for the matter, and at any hour whoever is there.
        "grew" if effect.urgent => vec![handler, Audience::Duty],
        "grew" | "withdrawn" | "person_wanted" | "same_matter" | "call_citizen" => vec![handler],
        "reopened" => vec![of_level, handler],
        // R7.a: nothing came by the day that was named.
        "material_due" | "took_in" => vec![handler],
        // R7.d, R8.1: the citizen was not satisfied.
        "evaluated" => vec![handler, Audience::Lead],
        // A7.6, A7.7: theirs to decide.
        "date_kept" | "half_closure" => vec![Audience::Lead],
        _ => vec![Audience::Duty],
    };
    // RD3.2: an emergency alerts the lead on duty at any hour.
    if effect.urgent || super::words::lands_in_half_closure(office, effect) {
        audiences.push(Audience::Lead);
    }
    audiences
}

/// The people behind an audience as it is stored, now, each once; without those whom another
/// notice of the same moment tells the same and more, which may leave nobody.
pub(super) async fn resolve(
    db: &mut PgConnection,
    office: OfficeId,
    audience: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Contact>, StoreError> {
    let mut names = audience.split('!');
    let mut people: Vec<Contact> = Vec::new();
    for audience in names.next().unwrap_or_default().split('+') {
        for contact in people_of(db, office, &Audience::read(audience), now).await? {
            if !people.contains(&contact) {
                people.push(contact);
            }
        }
    }
    for audience in names.flat_map(|also| also.split('+')) {
        let told = people_of(db, office, &Audience::read(audience), now).await?;
        people.retain(|contact| !told.contains(contact));
    }
    Ok(people)
}

/// Falls back until there is somebody: on duty now, the lead on duty of the week, the office,
/// anybody who receives citizens.
async fn people_of(
    db: &mut PgConnection,
    office: OfficeId,
    audience: &Audience,
    now: DateTime<Utc>,
) -> Result<Vec<Contact>, StoreError> {
    use store::office::{contact, on_duty, with_role};
    let first = match audience {
        Audience::Duty => Vec::new(),
        Audience::Person(id) => contact(db, office, StaffId(*id)).await?.into_iter().collect(),
        Audience::Lead => on_duty(db, office, Duty::Lead, now).await?,
        Audience::Leadership => with_role(db, office, Role::Leadership).await?,
        Audience::PartyGroup => with_role(db, office, Role::PartyGroup).await?,
    };
    if !first.is_empty() {
        return Ok(first);
    }
    for duty in [Duty::Officer, Duty::Lead] {
        let on_duty = on_duty(db, office, duty, now).await?;
        if !on_duty.is_empty() {
            return Ok(on_duty);
        }
    }
    for role in [Role::Office, Role::LeadOnDuty, Role::DutyOfficer, Role::Administrator] {
        let people = with_role(db, office, role).await?;
        if !people.is_empty() {
            return Ok(people);
        }
    }
    // An office without staff: the way itself (a group, a mailbox) is all there is.
    Ok(vec![Contact { name: "办公室".to_owned(), email: None, mobile: None }])
}
