//! Ids that cannot be mistaken for one another.

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(out)
            }
        }
    };
}

id!(
    /// An office: one window, the tenant.
    OfficeId(i32)
);
id!(
    /// A person of the staff, within an office.
    StaffId(i32)
);
id!(
    /// A unit (股室), within an office.
    UnitId(i32)
);
id!(
    /// A notice to the staff, within an office.
    NoticeId(i64)
);
id!(
    /// An item of the quarantine, within an office.
    QuarantineId(i64)
);
id!(
    /// Something that a citizen is to be told, within an office.
    ReplyId(i64)
);
