//! What can happen to an object, as far as the property test plays it.

use proptest::prelude::*;

use super::*;

/// How many events a run has at most.
const EVENTS: usize = 60;
pub(super) const SERVERS: [&str; 3] = [CONTOSO, FABRIKAM, LITWARE];

/// One event.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Wait(i64),
    /// The next mint under way ends.
    MintEnds(MintEnd),
    /// How the next calls about the Secret go, from now on.
    Calls(CallFault),
    /// A request that was lost arrives after all.
    LateRequest,
    ToggleRegistry(usize),
    /// Limits a registry to so many repositories; 0: to none.
    Limit(usize, usize),
    Suspend(bool),
    Label(u8),
    RefreshAnnotation(u8),
    /// The object names a `ServiceAccount`, or the controller identity.
    Identity(bool),
    Account(Account),
    OwnToken(bool),
    AllowControllerIdentity(bool),
    Policy(PolicyState),
    SecretIs(Tampering),
    /// A watch reports the Secret as it is now.
    WatchReports,
    Restart,
    ClockMoves(i64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MintEnd {
    Issued(i64),
    Unavailable,
    Refused,
    Terminal,
    Throttled,
    Cancelled,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum CallFault {
    Healthy,
    /// The answer is lost, the request is not.
    LosesAnswers,
    /// The request is lost, or arrives later.
    LosesRequests,
    Refuses,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Account {
    Found,
    Missing,
    NoAnswer,
    Forbidden,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Tampering {
    Changed,
    Deleted,
    Foreign,
    HandedOver,
    Terminating,
}

/// Sequences of events.
pub(super) fn events() -> impl Strategy<Value = Vec<Event>> {
    let mint_end = prop_oneof![
        6 => (60_i64..10_800).prop_map(MintEnd::Issued),
        2 => Just(MintEnd::Unavailable),
        1 => Just(MintEnd::Refused),
        1 => Just(MintEnd::Terminal),
        1 => Just(MintEnd::Throttled),
        1 => Just(MintEnd::Cancelled),
    ];
    let fault = prop_oneof![
        3 => Just(CallFault::Healthy),
        1 => Just(CallFault::LosesAnswers),
        1 => Just(CallFault::LosesRequests),
        1 => Just(CallFault::Refuses),
    ];
    let account = prop_oneof![
        Just(Account::Found),
        Just(Account::Missing),
        Just(Account::NoAnswer),
        Just(Account::Forbidden)
    ];
    let tampering = prop_oneof![
        Just(Tampering::Changed),
        Just(Tampering::Deleted),
        Just(Tampering::Foreign),
        Just(Tampering::HandedOver),
        Just(Tampering::Terminating)
    ];
    let policy = prop_oneof![
        3 => Just(PolicyState::InForce),
        1 => Just(PolicyState::Missing),
        1 => Just(PolicyState::Unknown)
    ];
    let event = prop_oneof![
        8 => prop_oneof![0_i64..5, 5_i64..120, 120_i64..6_000].prop_map(Event::Wait),
        12 => mint_end.prop_map(Event::MintEnds),
        2 => fault.prop_map(Event::Calls),
        2 => Just(Event::LateRequest),
        2 => (0..SERVERS.len()).prop_map(Event::ToggleRegistry),
        2 => (0..SERVERS.len(), 0_usize..3).prop_map(|(server, count)| Event::Limit(server, count)),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => any::<u8>().prop_map(Event::Label),
        1 => any::<u8>().prop_map(Event::RefreshAnnotation),
        1 => any::<bool>().prop_map(Event::Identity),
        1 => account.prop_map(Event::Account),
        1 => any::<bool>().prop_map(Event::OwnToken),
        1 => any::<bool>().prop_map(Event::AllowControllerIdentity),
        1 => policy.prop_map(Event::Policy),
        2 => tampering.prop_map(Event::SecretIs),
        1 => Just(Event::WatchReports),
        2 => Just(Event::Restart),
        1 => prop_oneof![Just(86_400_i64), Just(-86_400_i64), -7_200_i64..7_200].prop_map(Event::ClockMoves),
    ];
    prop::collection::vec(event, 1..EVENTS)
}
