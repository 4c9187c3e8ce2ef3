//! Resources of a request to Velt, dated by Velt's clock.

use std::time::Duration;

use serde::Serialize;

use crate::{End, MintRequest, Right};

/// Life that a right must still have to be sent. Velt refuses a request with a right that has ended
/// ("expiresAt" must be in the future), clocks differ by seconds, and the request takes a moment.
const LEAST_LIFE: Duration = Duration::from_secs(5);

/// One element of `permissions.resources`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Resource<'a> {
    r#type: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_role: Option<&'static str>,
    /// End of the right in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
}

/// Resources that a request names at a moment.
pub(super) struct Dated<'a> {
    pub(super) resources: Vec<Resource<'a>>,
    /// Time from that moment to the earliest end of a resource.
    pub(super) life: Option<Duration>,
}

impl<'a> Dated<'a> {
    /// Dates the rights of `request` at `velt_now`, the time since 1970 by Velt's clock. Leaves out each right
    /// that has ended.
    pub(super) fn at(request: &'a MintRequest, velt_now: Duration) -> Self {
        let mut dated = Self { resources: Vec::new(), life: None };
        for right in request.rights() {
            let life = match right.end {
                Some(End::In(life)) => Some(life),
                Some(End::At(end)) => Some(Duration::from_secs(end).saturating_sub(velt_now)),
                None => None,
            };
            // The configuration's own times count from the mint, so they have not ended, however short.
            if matches!(right.end, Some(End::At(_))) && life < Some(LEAST_LIFE) {
                continue;
            }
            dated.life = [dated.life, life].into_iter().flatten().min();
            dated.resources.push(Resource::new(&right, velt_now));
        }
        dated
    }
}

/// Whether a date in `request` depends on the clock.
pub(super) fn is_dated(request: &MintRequest) -> bool {
    request.rights().iter().any(|right| right.end.is_some())
}

impl<'a> Resource<'a> {
    fn new(right: &Right<'a>, velt_now: Duration) -> Self {
        Self {
            r#type: right.kind.as_str(),
            id: right.id,
            organization_id: right.organization,
            access_role: right.role.map(ground::grants::AccessRole::as_str),
            expires_at: right.end.map(|end| match end {
                End::In(life) => (velt_now + life).as_secs(),
                End::At(end) => end,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::velt::Api;
    use crate::{Details, Issuer, MintPlan, Rights};
    use ground::grants::Grants;
    use ground::groups::GroupSet;

    const NOW: Duration = Duration::from_millis(1_000_000_500);

    fn request(grants: &str) -> MintRequest {
        let issuer = Issuer {
            api: Api::V2,
            endpoint: "https://velt".into(),
            credentials_generation: 0,
            organization: Some("acme".into()),
            resources: [].into(),
        };
        let grants = Grants::parse(grants.as_bytes()).expect("grants");
        let rights = Rights::new(GroupSet::default(), Some(&grants));
        let plan = MintPlan::new(issuer, true);
        plan.request_with("ada".into(), Details::default(), rights).expect("a request")
    }

    fn sent(request: &MintRequest) -> (Vec<&str>, Option<Duration>) {
        let Dated { resources, life } = Dated::at(request, NOW);
        (resources.iter().map(|resource| resource.id).collect(), life)
    }

    #[test]
    fn ended_grants_are_left_out() {
        let request = request(
            r#"[{"type":"folder","id":"a","expiresAt":1000000},
                {"type":"folder","id":"b","expiresAt":1000005},
                {"type":"folder","id":"c","expiresAt":1000006},
                {"type":"folder","id":"d","expiresAt":2000000}]"#,
        );
        let life = Duration::from_millis(5500);
        assert_eq!(sent(&request), (vec!["acme", "c", "d"], Some(life)));
        assert!(is_dated(&request));
    }

    #[test]
    fn ended_grant_of_the_own_organization_gives_no_other_right() {
        let request = request(r#"[{"type":"organization","id":"acme","expiresAt":5}]"#);
        assert_eq!(sent(&request), (vec![], None));
    }
}
