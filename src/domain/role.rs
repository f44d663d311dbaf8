//! Who works with it (RULES.md, "Who works with it").

use serde::{Deserialize, Serialize};

/// A role of the staff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// 值班人员
    DutyOfficer,
    /// 股室主任
    UnitHead,
    /// 带班领导
    LeadOnDuty,
    /// 中心班子
    Leadership,
    /// 局党组
    PartyGroup,
    /// 办公室
    Office,
    /// 管理员: accounts, channels, settings; no tickets.
    Administrator,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 7] = [
        Self::DutyOfficer,
        Self::UnitHead,
        Self::LeadOnDuty,
        Self::Leadership,
        Self::PartyGroup,
        Self::Office,
        Self::Administrator,
    ];

    /// The value in the database and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DutyOfficer => "duty_officer",
            Self::UnitHead => "unit_head",
            Self::LeadOnDuty => "lead_on_duty",
            Self::Leadership => "leadership",
            Self::PartyGroup => "party_group",
            Self::Office => "office",
            Self::Administrator => "administrator",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// The Chinese name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::DutyOfficer => "值班人员",
            Self::UnitHead => "股室负责人",
            Self::LeadOnDuty => "带班领导",
            Self::Leadership => "中心班子",
            Self::PartyGroup => "局党组",
            Self::Office => "办公室",
            Self::Administrator => "管理员",
        }
    }

    /// Whether the role sees tickets at all: the administrator does not.
    #[must_use]
    pub fn sees_tickets(self) -> bool {
        self != Self::Administrator
    }

    /// Whether the role decides that recordings are kept beyond the rule: who supervises, and who
    /// keeps the archive.
    #[must_use]
    pub fn holds_recordings(self) -> bool {
        matches!(self, Self::LeadOnDuty | Self::Leadership | Self::Office)
    }

    /// Whether the role registers, claims and refers (R7.b) at the window.
    #[must_use]
    pub fn receives_citizens(self) -> bool {
        matches!(self, Self::DutyOfficer | Self::UnitHead | Self::LeadOnDuty)
    }
}
