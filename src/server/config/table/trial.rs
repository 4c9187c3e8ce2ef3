//! The table `velt.trial`: a user for whom a token is minted on a timer.

use std::time::Duration;

use super::super::reader::Section;
use super::super::setting::Span;
use token::resilience::Bounds;
use token::trial::Settings;
use token::{MintPlan, Unplanned};

/// Shortest interval. Each replica makes trial mints, and each of them is a call to Velt.
const SHORTEST: Duration = Duration::from_secs(60);

/// Reads the table. `None` if no user is named, so that nothing is minted.
pub fn read(section: &Section<'_, '_>, plan: &MintPlan, bounds: Bounds) -> Option<Settings> {
    let user: Option<String> = section.optional("user");
    let organization: Option<String> = section.optional("organization");
    let interval = section.value::<Span>("interval", "5m").0;
    if interval < SHORTEST {
        let problem = "each replica would call Velt more than once a minute";
        section.complain_about("interval", problem, "write \"1m\" or more");
    }
    let Some(user) = user else {
        if section.has("organization") {
            section.complain_of_no_effect(
                "organization",
                "it has no effect without the user to mint for",
                "write user = \"velt-sidecar-trial\" in [velt.trial], or remove it",
            );
        }
        return None;
    };
    if bounds.floor < 2 {
        section.complain_about(
            "user",
            "its mint never takes the last call that may run at once, and so would never begin",
            "write min_concurrent = 2 or more in [velt], and max_concurrent too, or remove it",
        );
    }
    let settings = Settings { user, organization, interval };
    if settings.request(plan).err() == Some(Unplanned::NoOrganization) {
        section.complain_of_missing(
            "organization",
            "it is missing, and this API needs one",
            "write organization = \"your-organization-id\" in [velt.trial], or in [velt] for all users",
        );
    }
    Some(settings)
}
