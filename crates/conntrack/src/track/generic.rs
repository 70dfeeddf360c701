//! Every other protocol: one flow per protocol and address pair, never ASSURED.

use super::timeout::TimeoutKey;
use super::{Context, Step};
use crate::table::entry::Head;

/// What one packet does to its flow: nothing but to keep it alive. Having no state, it leaves its head alone.
pub fn step(_head: &mut Head, ctx: &Context<'_>) -> Step {
    Step::refresh(TimeoutKey::Generic, ctx.settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Direction;
    use crate::table::entry::status;
    use crate::track::settings::{Profile, Settings};

    #[test]
    fn an_answered_flow_is_renewed_but_never_assured() {
        let settings = Settings::new(Profile::Linux);
        let mut head = Head { status: status::SEEN_REPLY, ..Head::default() };
        let ctx = Context { now: 0, direction: Direction::Original, first: false, settings: &settings };
        assert_eq!(step(&mut head, &ctx), Step::refresh(TimeoutKey::Generic, &settings));
        assert_eq!(head.status, status::SEEN_REPLY);
    }
}
