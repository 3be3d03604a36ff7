//! Two members and a clock that only the test moves.

use super::*;

struct Table {
    state: GroupState,
    now: Instant,
}

type Waiting = oneshot::Receiver<Joined>;

impl Table {
    fn new() -> Table {
        Table {
            state: GroupState::new(),
            now: Instant::now(),
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        while self.state.poll_timeout().is_some_and(|at| at <= self.now) {
            self.state.handle_timeout(self.now);
        }
    }

    fn join(&mut self, member_id: &str, instance: Option<&str>) -> Waiting {
        let (reply, answer) = oneshot::channel();
        let request = JoinRequest {
            member_id: member_id.to_owned(),
            instance_id: instance.map(str::to_owned),
            client_id: "test".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(30),
            protocol_type: "consumer".to_owned(),
            protocols: vec![("range".to_owned(), Bytes::new())],
            id_required: true,
        };
        self.state.handle_join(self.now, request, reply);
        answer
    }

    /// Joins as a client does: gets an id first, then waits with it.
    fn enter(&mut self) -> (String, Waiting) {
        let first = self.join("", None).try_recv().unwrap();
        assert_eq!(first.error_code, MEMBER_ID_REQUIRED);
        let waiting = self.join(&first.member_id, None);
        (first.member_id, waiting)
    }

    fn sync(
        &mut self,
        id: &str,
        generation: i32,
        given: &[(&str, &'static str)],
    ) -> oneshot::Receiver<Synced> {
        let (reply, answer) = oneshot::channel();
        let caller = Caller {
            member_id: id,
            instance_id: None,
            generation,
        };
        let given = given
            .iter()
            .map(|(id, what)| ((*id).to_owned(), Bytes::from_static(what.as_bytes())))
            .collect();
        self.state.handle_sync(
            self.now,
            &caller,
            (Some("consumer"), Some("range")),
            given,
            reply,
        );
        answer
    }

    fn heartbeat(&mut self, id: &str, generation: i32) -> i16 {
        self.state.handle_heartbeat(
            self.now,
            &Caller {
                member_id: id,
                instance_id: None,
                generation,
            },
        )
    }

    fn commit(&mut self, id: &str, generation: i32) -> i16 {
        self.state.handle_commit(
            self.now,
            &Caller {
                member_id: id,
                instance_id: None,
                generation,
            },
        )
    }

    /// Two members, stable.
    fn two() -> (Table, String, String, i32) {
        let mut table = Table::new();
        let (a, mut a_joins) = table.enter();
        let (b, mut b_joins) = table.enter();
        table.pass(10_000);
        let (a_joined, b_joined) = (a_joins.try_recv().unwrap(), b_joins.try_recv().unwrap());
        assert_eq!((a_joined.error_code, b_joined.error_code), (NONE, NONE));
        assert_eq!(a_joined.leader, a);
        assert_eq!(a_joined.members.len(), 2);
        assert!(b_joined.members.is_empty());
        let generation = a_joined.generation;
        assert_eq!(generation, b_joined.generation);
        let mut b_syncs = table.sync(&b, generation, &[]);
        assert!(
            b_syncs.try_recv().is_err(),
            "only the leader knows the assignment"
        );
        let mut a_syncs = table.sync(&a, generation, &[(&a, "left"), (&b, "right")]);
        assert_eq!(a_syncs.try_recv().unwrap().assignment, "left");
        assert_eq!(b_syncs.try_recv().unwrap().assignment, "right");
        assert_eq!(table.state.phase(), Phase::Stable);
        (table, a, b, generation)
    }

    fn rejoin_alone(&mut self, id: &str) -> Joined {
        self.join(id, None).try_recv().unwrap()
    }
}

#[test]
fn a_third_member_makes_the_others_join_again_and_old_commits_are_refused_afterwards() {
    let (mut table, a, b, generation) = Table::two();
    let (_c, mut c_joins) = table.enter();
    assert_eq!(table.heartbeat(&a, generation), REBALANCE_IN_PROGRESS);
    assert_eq!(
        table.commit(&a, generation),
        NONE,
        "what was processed is committed before joining again"
    );
    let mut a_joins = table.join(&a, None);
    assert!(a_joins.try_recv().is_err());
    let mut b_joins = table.join(&b, None);
    let next = a_joins.try_recv().unwrap().generation;
    assert_eq!(next, generation + 1);
    assert_eq!(b_joins.try_recv().unwrap().generation, next);
    assert_eq!(c_joins.try_recv().unwrap().generation, next);
    assert_eq!(table.commit(&a, generation), ILLEGAL_GENERATION);
    assert_eq!(
        table.commit(&a, next),
        REBALANCE_IN_PROGRESS,
        "not before the new assignment"
    );
}

#[test]
fn a_silent_member_is_removed_and_its_late_commit_is_refused() {
    let (mut table, a, b, generation) = Table::two();
    table.pass(9_000);
    assert_eq!(table.heartbeat(&a, generation), NONE);
    table.pass(2_000);
    assert_eq!(table.heartbeat(&a, generation), REBALANCE_IN_PROGRESS);
    assert_eq!(table.commit(&b, generation), UNKNOWN_MEMBER_ID);
    let joined = table.rejoin_alone(&a);
    assert_eq!((joined.error_code, joined.members.len()), (NONE, 1));
}

#[test]
fn leaving_hands_the_group_to_who_stays() {
    let (mut table, a, b, generation) = Table::two();
    assert_eq!(table.state.handle_leave(table.now, &a, None), NONE);
    assert_eq!(table.heartbeat(&b, generation), REBALANCE_IN_PROGRESS);
    let joined = table.rejoin_alone(&b);
    assert_eq!(
        (joined.leader.as_str(), joined.generation),
        (b.as_str(), generation + 1)
    );
    assert_eq!(table.state.handle_leave(table.now, &b, None), NONE);
    assert_eq!(table.state.phase(), Phase::Empty);
    assert!(table.state.is_idle());
    assert_eq!(table.state.poll_timeout(), None);
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let (mut table, a, b, generation) = Table::two();
    let (_c, mut c_joins) = table.enter();
    let mut b_joins = table.join(&b, None);
    for _ in 0..10 {
        table.pass(2_900);
        assert_ne!(table.heartbeat(&a, generation), NONE, "a only heartbeats");
    }
    assert!(b_joins.try_recv().is_err());
    table.pass(1_001);
    assert_eq!(b_joins.try_recv().unwrap().error_code, NONE);
    assert_eq!(c_joins.try_recv().unwrap().error_code, NONE);
    assert_eq!(table.heartbeat(&a, generation), UNKNOWN_MEMBER_ID);
}

#[test]
fn a_leader_that_never_hands_out_the_assignment_is_replaced() {
    let mut table = Table::new();
    let (a, mut a_joins) = table.enter();
    let (b, _b_joins) = table.enter();
    table.pass(10_000);
    let generation = a_joins.try_recv().unwrap().generation;
    let mut b_syncs = table.sync(&b, generation, &[]);
    table.pass(30_001);
    assert_eq!(
        b_syncs.try_recv().unwrap().error_code,
        REBALANCE_IN_PROGRESS
    );
    assert_eq!(table.heartbeat(&a, generation), UNKNOWN_MEMBER_ID);
    assert_eq!(table.rejoin_alone(&b).leader, b);
}

#[test]
fn a_static_member_that_restarts_disturbs_nobody_and_fences_its_past() {
    let mut table = Table::new();
    let mut leader = table.join("", Some("one"));
    let mut follower = table.join("", Some("two"));
    table.pass(10_000);
    let (leader, follower) = (leader.try_recv().unwrap(), follower.try_recv().unwrap());
    let given: [(&str, &'static str); 2] =
        [(&leader.member_id, "left"), (&follower.member_id, "right")];
    table.sync(&leader.member_id, leader.generation, &given);
    let again = table.join("", Some("two")).try_recv().unwrap();
    assert_eq!(
        (again.error_code, again.generation),
        (NONE, leader.generation)
    );
    assert_ne!(again.member_id, follower.member_id);
    assert_eq!(table.state.phase(), Phase::Stable);
    assert_eq!(
        table
            .sync(&again.member_id, again.generation, &[])
            .try_recv()
            .unwrap()
            .assignment,
        "right"
    );
    let past = Caller {
        member_id: &follower.member_id,
        instance_id: Some("two"),
        generation: again.generation,
    };
    assert_eq!(
        table.state.handle_heartbeat(table.now, &past),
        FENCED_INSTANCE_ID
    );
    assert_eq!(
        table.state.handle_commit(table.now, &past),
        FENCED_INSTANCE_ID
    );
}

#[test]
fn a_join_whose_client_has_gone_does_not_count() {
    let (mut table, a, b, _generation) = Table::two();
    drop(table.join(&a, None));
    let mut b_joins = table.join(&b, None);
    assert!(b_joins.try_recv().is_err(), "a is waited for");
    table.pass(30_001);
    assert_eq!(b_joins.try_recv().unwrap().leader, b);
}

#[test]
fn members_must_understand_each_other() {
    let (mut table, ..) = Table::two();
    let (reply, mut answer) = oneshot::channel();
    let request = JoinRequest {
        member_id: String::new(),
        instance_id: None,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(10),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("sticky".to_owned(), Bytes::new())],
        id_required: false,
    };
    table.state.handle_join(table.now, request, reply);
    assert_eq!(
        answer.try_recv().unwrap().error_code,
        INCONSISTENT_GROUP_PROTOCOL
    );
}
