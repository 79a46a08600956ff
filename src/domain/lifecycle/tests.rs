use super::*;

/// A simulated engine with one container, and the supervisor's part: runs what `step` asks for.
#[expect(clippy::struct_excessive_bools, reason = "switches of a simulation")]
struct World {
    life: Life,
    now: Instant,
    container: Real,
    runs: u64,
    engine: bool,
    answers: bool,
    crashes: bool,
    readiness: Readiness,
    pending: Option<Op>,
    saves: Vec<Effect>,
    starts: usize,
    told: Vec<Status>,
    forgotten: bool,
    /// What the store has of it.
    asleep: bool,
}

const KINDS: [Kind; 2] = [Kind::Ours, Kind::Adopted];
const HTTP: Readiness = Readiness::Http { port: 80, named: true };
const NEVER_RAN: Real = Real::Down { exit: None, oom: false, stale: false };

/// What is wanted of one at rest.
fn at_rest(kind: Kind) -> Desired {
    if kind == Kind::Ours { Desired::Running } else { Desired::AsFound }
}

fn ended(code: i64) -> Real {
    Real::Down { exit: Some(code), oom: false, stale: false }
}

impl World {
    fn new(kind: Kind, desired: Desired, container: Real) -> World {
        let now = Instant::now();
        let mut world = World {
            life: Life::new(kind, desired, false, now),
            now,
            container,
            runs: 0,
            engine: true,
            answers: true,
            crashes: false,
            readiness: HTTP,
            pending: None,
            saves: Vec::new(),
            starts: 0,
            told: Vec::new(),
            forgotten: false,
            asleep: false,
        };
        world.told.push(world.life.status());
        world.input(Input::EngineBack);
        world
    }

    fn up(&mut self) -> Real {
        self.runs += 1;
        Real::Up { since: SystemTime::UNIX_EPOCH + Duration::from_secs(self.runs), readiness: self.readiness }
    }

    fn input(&mut self, input: Input) {
        let (life, effects) = step(self.life.clone(), input, self.now);
        self.life = life;
        let status = self.life.status();
        if self.told.last() != Some(&status) && self.life.is_visible() && !self.life.is_undecided() {
            self.told.push(status);
        }
        for effect in effects {
            match effect {
                Effect::Run(op) => {
                    assert!(self.pending.is_none(), "two operations at once: {:?} and {op:?}", self.pending);
                    assert!(!self.life.is_saving(), "{op:?} before the intent was durable");
                    self.pending = Some(op);
                }
                Effect::Announce => self.told.push(status),
                effect => self.saves.push(effect),
            }
        }
    }

    /// The engine does the pending operation.
    fn run_op(&mut self) {
        let Some(op) = self.pending.take() else { return };
        let outcome = if self.engine { self.perform(op) } else { Outcome::Unavailable };
        self.input(Input::Ended(op, outcome));
    }

    fn perform(&mut self, op: Op) -> Outcome {
        match op {
            Op::Look => return Outcome::Seen(self.container.clone()),
            Op::Probe => return Outcome::Answered(self.answers && self.container.is_up()),
            Op::Logs => return Outcome::Output("boom\n".into()),
            Op::Create if self.container != Real::Absent => return Outcome::Refused("Conflict".into()),
            Op::Create => self.container = NEVER_RAN,
            Op::Remove => self.container = Real::Absent,
            _ if self.container == Real::Absent => return Outcome::Seen(Real::Absent),
            Op::Start => {
                self.starts += 1;
                self.container = self.up();
                if self.crashes {
                    self.container = ended(1);
                }
            }
            Op::Pause if !self.container.is_up() => return Outcome::Refused("it does not run".into()),
            Op::Pause => self.container = Real::Paused,
            Op::Unpause if self.container == Real::Paused => {
                // The run before goes on.
                self.container = Real::Up {
                    since: SystemTime::UNIX_EPOCH + Duration::from_secs(self.runs),
                    readiness: self.readiness,
                };
            }
            Op::Unpause => return Outcome::Refused("it is not paused".into()),
            Op::Stop => self.container = ended(143),
        }
        Outcome::Done
    }

    fn save(&mut self) {
        if self.saves.is_empty() {
            return;
        }
        match self.saves.remove(0) {
            Effect::Forget => {
                self.forgotten = true;
                return;
            }
            Effect::Save(Change::Asleep(asleep)) => self.asleep = asleep,
            _ => self.asleep = false,
        }
        self.input(Input::Saved);
    }

    /// Everything that can happen without time passing happens.
    fn settle(&mut self) {
        for _ in 0..100 {
            if self.pending.is_none() && self.saves.is_empty() {
                return;
            }
            self.save();
            self.run_op();
        }
        panic!("it never comes to rest: {:?}", self.life);
    }

    /// Lets time pass, with all deadlines on the way.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        self.settle();
        for _ in 0..100_000 {
            match self.life.due() {
                Some(due) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(Input::Due);
                    self.settle();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("deadlines without end: {:?}", self.life);
    }

    fn outside(&mut self, container: Real, killed: bool) {
        self.container = container;
        if killed {
            self.input(Input::Killed);
        }
        self.input(Input::Hint);
        self.settle();
    }

    fn running(kind: Kind) -> World {
        let mut world = World::new(kind, at_rest(kind), Real::Absent);
        world.container = world.up();
        world.pass(Duration::from_millis(10));
        assert_eq!(world.life.status(), Status::Running);
        world.told.clear();
        world.told.push(Status::Running);
        world
    }
}

#[test]
fn what_was_on_its_way_up_when_muelle_ended_is_asked_again_at_the_next_boot() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.answers = false;
    world.container = world.up();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.life.status(), Status::Deploying);
    world.answers = true;
    world.pass(Duration::from_secs(1));
    assert_eq!((world.life.status(), world.starts), (Status::Running, 0));

    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.readiness = Readiness::Uptime;
    world.container = world.up();
    world.settle();
    assert_eq!(world.told, [Status::Deploying, Status::Running], "it has run for a while");
}

#[test]
fn a_container_that_is_never_as_it_should_be_is_created_anew_once() {
    let stale = Real::Down { exit: None, oom: false, stale: true };
    let mut world = World::new(Kind::Ours, Desired::Running, stale.clone());
    let mut creations = 0;
    for _ in 0..50 {
        world.save();
        creations += usize::from(world.pending == Some(Op::Create));
        world.run_op();
        if world.container == NEVER_RAN {
            world.container = stale.clone();
        }
    }
    assert_eq!((creations, world.starts), (1, 1));
}

#[test]
fn a_new_project_is_created_started_and_running_once_it_answers() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.answers = false;
    world.pass(Duration::from_secs(3));
    assert_eq!(world.life.status(), Status::Deploying);
    world.answers = true;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.told, [Status::Deploying, Status::Running]);
    assert_eq!(world.starts, 1);
}

#[test]
fn case_72_a_start_tells_deploying_then_running_and_a_stop_tells_stopped() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Stop);
    assert_eq!(world.life.status(), Status::Running, "it is not stopped until it is");
    world.settle();
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.told, [Status::Running, Status::Stopped, Status::Deploying, Status::Running]);
}

#[test]
fn nothing_is_asked_of_the_engine_before_the_intent_is_durable() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Stop);
    assert_eq!(world.pending, None);
    assert_eq!(world.saves, [Effect::Save(Change::Desired(Desired::Stopped))]);
    world.save();
    assert_eq!(world.pending, Some(Op::Stop));
}

#[test]
fn an_intent_that_cannot_be_saved_changes_nothing() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Stop);
    world.saves.clear();
    world.input(Input::NotSaved);
    world.pass(Duration::from_secs(30));
    assert!(world.container.is_up());
    assert_eq!(world.told, [Status::Running]);
}

#[test]
fn case_60_start_on_running_tells_running_again_and_stop_on_stopped_is_quiet() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Start);
    world.settle();
    assert_eq!(world.told, [Status::Running, Status::Running]);
    world.input(Input::Stop);
    world.settle();
    world.input(Input::Stop);
    world.settle();
    assert_eq!(world.told, [Status::Running, Status::Running, Status::Stopped]);
}

#[test]
fn case_61_a_stop_while_starting_abandons_the_start() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.answers = false;
    world.pass(Duration::from_secs(1));
    assert!(world.container.is_up());
    world.input(Input::Stop);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.container, ended(143));
    assert_eq!(world.told, [Status::Deploying, Status::Stopped]);
}

#[test]
fn a_restart_stops_and_starts_once() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Restart);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.told, [Status::Running, Status::Deploying, Status::Running]);
    assert_eq!(world.starts, 1);
}

#[test]
fn settings_that_changed_replace_the_container_at_the_next_start() {
    let mut world =
        World::new(Kind::Ours, Desired::Stopped, Real::Down { exit: Some(0), oom: false, stale: true });
    world.settle();
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.life.status(), Status::Running);
    assert_eq!(world.starts, 1);
}

#[test]
fn a_container_that_ends_before_it_is_ready_is_an_error_with_its_last_output() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.crashes = true;
    world.pass(Duration::from_secs(1));
    assert_eq!(world.told, [Status::Deploying, Status::Error], "ended before the look");
    assert_eq!(world.starts, 1);
    assert_eq!(world.life.reason(), Some("Exited with code 1. Last output: boom"));

    (world.crashes, world.answers) = (false, false);
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    world.outside(ended(3), false);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(world.life.reason(), Some("Exited with code 3. Last output: boom"));
}

#[test]
fn case_86_a_crash_is_started_again_at_1_5_and_25_s_and_the_fourth_is_an_error() {
    let mut world = World::running(Kind::Ours);
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.outside(ended(1), false);
        let before = world.now;
        for _ in 0..300 {
            if world.container.is_up() || world.life.status() == Status::Error {
                break;
            }
            world.pass(Duration::from_millis(100));
        }
        waits.push((world.now - before).as_secs());
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(waits, [1, 5, 25, 0]);
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(
        world.life.reason(),
        Some("Ended 4 times within 10 minutes. Exited with code 1. Last output: boom")
    );
}

#[test]
fn case_86_out_of_memory_says_so() {
    let mut world = World::running(Kind::Ours);
    world.outside(Real::Down { exit: Some(137), oom: true, stale: false }, false);
    assert_eq!(world.life.status(), Status::Deploying);
    assert!(world.life.reason().is_some_and(|r| r.starts_with("Out of memory")), "{:?}", world.life.reason());
}

#[test]
fn a_stop_from_outside_shows_at_once_and_is_wanted_after_20_s() {
    let mut world = World::running(Kind::Ours);
    world.outside(ended(137), true);
    assert_eq!(world.told, [Status::Running, Status::Stopped]);
    world.pass(Duration::from_secs(19));
    assert_eq!(world.life.desired, Desired::Running);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.life.desired, Desired::Stopped);
    assert_eq!(world.starts, 0);
}

#[test]
fn case_78_a_stop_by_an_engine_that_goes_down_is_undone_when_it_returns() {
    let mut world = World::running(Kind::Ours);
    world.outside(ended(137), true);
    world.pass(Duration::from_secs(11));
    world.input(Input::EngineLost);
    world.engine = false;
    world.pass(Duration::from_secs(60));
    assert_eq!(world.life.desired, Desired::Running);
    world.engine = true;
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told, [Status::Running, Status::Stopped, Status::Deploying, Status::Running]);
    assert_eq!(world.starts, 1);
}

#[test]
fn case_85_a_removed_container_is_stopped_and_created_anew_at_the_next_start() {
    let mut world = World::running(Kind::Ours);
    world.outside(Real::Absent, true);
    assert_eq!(world.life.status(), Status::Stopped);
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn case_85_a_container_that_is_removed_in_the_middle_of_a_start_is_created_anew() {
    let mut world = World::running(Kind::Ours);
    world.outside(ended(137), true);
    world.input(Input::Start);
    world.save();
    while world.pending != Some(Op::Start) {
        world.run_op();
    }
    world.container = Real::Absent;
    world.pass(Duration::from_secs(10));
    assert_eq!((world.life.status(), world.starts), (Status::Running, 1), "{:?}", world.life);
    let mut adopted = World::running(Kind::Adopted);
    adopted.outside(ended(137), true);
    adopted.input(Input::Start);
    adopted.save();
    while adopted.pending != Some(Op::Start) {
        adopted.run_op();
    }
    adopted.container = Real::Absent;
    adopted.pass(Duration::from_secs(10));
    assert_eq!(adopted.life.reason(), Some("The container does not exist any more"));
}

#[test]
fn case_85_an_adopted_container_that_is_gone_is_an_error() {
    let mut world = World::running(Kind::Adopted);
    world.outside(Real::Absent, true);
    assert_eq!(world.life.status(), Status::Error);
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(world.life.reason(), Some("The container does not exist any more"));
}

#[test]
fn an_adopted_container_is_never_started_by_itself() {
    let mut world = World::running(Kind::Adopted);
    world.outside(ended(1), false);
    assert_eq!(world.life.status(), Status::Error);
    world.pass(Duration::from_secs(3600));
    world.input(Input::EngineLost);
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.starts, 0);
}

#[test]
fn an_adopted_container_that_its_policy_restarts_is_believed_after_10_s() {
    let mut world = World::running(Kind::Adopted);
    world.outside(Real::Restarting { exit: 3 }, false);
    assert_eq!(world.life.status(), Status::Error);
    let up = world.up();
    world.outside(up, false);
    world.pass(Duration::from_secs(9));
    assert_eq!(world.life.status(), Status::Error);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told, [Status::Running, Status::Error, Status::Running]);
}

#[test]
fn an_interrupted_command_on_an_adopted_container_goes_on_at_the_next_boot() {
    let mut world = World::new(Kind::Adopted, Desired::Stopped, Real::Absent);
    world.container = world.up();
    world.settle();
    assert_eq!(world.container, ended(143));
    assert_eq!(world.life.desired, Desired::AsFound);
}

#[test]
fn paused_by_others_is_stopped_and_a_start_thaws_it() {
    let mut world = World::running(Kind::Ours);
    world.outside(Real::Paused, false);
    assert_eq!(world.life.status(), Status::Stopped);
    world.input(Input::Start);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn a_named_port_that_never_answers_is_an_error_and_a_guessed_one_is_let_through() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.answers = false;
    world.pass(Duration::from_secs(62));
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(world.life.reason(), Some("It did not answer HTTP on port 80 within 60 s"));
    assert!(!world.container.is_up());

    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.readiness = Readiness::Http { port: 6379, named: false };
    world.answers = false;
    world.pass(Duration::from_secs(11));
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn without_a_port_it_is_ready_after_2_s_and_with_a_health_check_when_that_passes() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.readiness = Readiness::Uptime;
    world.pass(Duration::from_millis(1900));
    assert_eq!(world.life.status(), Status::Deploying);
    world.pass(Duration::from_millis(200));
    assert_eq!(world.life.status(), Status::Running);

    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.readiness = Readiness::Checked(Health::Starting);
    world.pass(Duration::from_secs(100));
    assert_eq!(world.life.status(), Status::Deploying);
    let Real::Up { since, .. } = world.container else { panic!("not up") };
    world.outside(Real::Up { since, readiness: Readiness::Checked(Health::Healthy) }, false);
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn a_delete_removes_the_container_then_the_record_and_leaves_an_adopted_one_alone() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Delete);
    assert!(!world.life.is_visible());
    world.settle();
    assert_eq!((world.forgotten, &world.container), (true, &Real::Absent));

    let mut world = World::running(Kind::Adopted);
    world.input(Input::Delete);
    world.settle();
    assert!(world.forgotten && world.container.is_up());
}

#[test]
fn a_delete_of_what_was_never_built_goes_on_at_the_next_boot_too() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.life = Life::new(Kind::Ours, Desired::Running, true, world.now).unbuilt();
    world.pending = None;
    world.input(Input::NotBuilt("no Dockerfile".into()));
    assert!(!world.life.is_visible());
    world.input(Input::EngineBack);
    world.settle();
    assert!(world.forgotten);
}

#[test]
fn a_delete_that_was_interrupted_goes_on_at_the_next_boot() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.life = Life::new(Kind::Ours, Desired::Running, true, world.now);
    world.pending = None;
    world.input(Input::EngineBack);
    world.settle();
    assert_eq!((world.forgotten, &world.container), (true, &Real::Absent));
}

#[test]
fn a_start_that_ends_at_once_after_a_stop_is_an_error_and_not_somebodys_stop() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Stop);
    world.save();
    world.input(Input::Killed);
    world.settle();
    world.crashes = true;
    world.input(Input::Start);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(world.life.saved, Desired::Running);
}

#[test]
fn the_end_of_a_run_that_somebody_asked_for_is_told_before_the_engine_can_be_asked() {
    for kind in [Kind::Ours, Kind::Adopted] {
        let mut world = World::running(kind);
        let before = world.container.clone();
        world.input(Input::Killed);
        // This look is under way when the run ends, and shows it still.
        world.input(Input::Hint);
        world.input(Input::Died(137));
        assert_eq!(world.life.status(), Status::Stopped);
        assert_eq!(world.pending.take(), Some(Op::Look));
        world.input(Input::Ended(Op::Look, Outcome::Seen(before.clone())));
        assert_eq!(world.life.status(), Status::Stopped);
        world.container = ended(137);
        world.settle();
        assert_eq!(world.told, [Status::Running, Status::Stopped], "{kind:?}");

        // What the engine goes on to show is the truth.
        let mut world = World::running(kind);
        world.input(Input::Killed);
        world.input(Input::Died(137));
        world.settle();
        assert_eq!((world.life.status(), &world.container), (Status::Running, &before), "{kind:?}");
    }
}

#[test]
fn an_end_that_was_believed_is_judged_again_by_the_look_behind_it() {
    let mut world = World::running(Kind::Adopted);
    // It survived the signal, and ended for want of memory.
    world.input(Input::Killed);
    world.input(Input::Died(137));
    assert_eq!(world.life.status(), Status::Stopped);
    world.container = Real::Down { exit: Some(137), oom: true, stale: false };
    world.settle();
    assert_eq!(world.life.status(), Status::Error);
    assert!(world.life.reason().is_some_and(|reason| reason.starts_with("Out of memory")));
}

#[test]
fn an_end_that_nobody_asked_for_is_judged_by_a_look() {
    let mut world = World::running(Kind::Adopted);
    world.input(Input::Died(137));
    assert_eq!(world.life.status(), Status::Running);
    world.container = Real::Down { exit: Some(137), oom: true, stale: false };
    world.settle();
    assert_eq!(world.life.status(), Status::Error);
    assert!(world.life.reason().is_some_and(|reason| reason.starts_with("Out of memory")));
}

#[test]
fn a_change_that_cannot_be_saved_in_the_background_is_tried_again_later_and_changes_nothing() {
    let mut world = World::running(Kind::Ours);
    world.outside(ended(137), true);
    world.now += SETTLE;
    world.input(Input::Due);
    assert_eq!(world.saves, [Effect::Save(Change::Desired(Desired::Stopped))]);
    world.saves.clear();
    world.input(Input::NotSaved);
    world.pass(Duration::from_secs(5));
    assert_eq!((world.starts, world.life.status()), (0, Status::Stopped), "it is not started again");
    world.pass(SETTLE);
    assert_eq!(world.life.saved, Desired::Stopped);
}

#[test]
fn of_two_changes_the_one_that_was_saved_stays() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Stop);
    world.input(Input::Start);
    assert_eq!(world.saves.len(), 2);
    world.save();
    world.saves.clear();
    world.input(Input::NotSaved);
    world.pass(Duration::from_secs(5));
    assert_eq!((world.life.saved, world.life.status()), (Desired::Stopped, Status::Stopped));
}

#[test]
fn a_strangers_container_under_its_name_is_an_error_with_the_sentence_until_it_is_gone() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    let foreign = || Outcome::Foreign("A container called x exists that muelle did not create".into());
    for _ in 0..3 {
        assert_eq!(world.pending.take(), Some(Op::Look));
        world.input(Input::Ended(Op::Look, foreign()));
        assert_eq!(world.life.status(), Status::Error);
        assert!(world.life.reason().is_some_and(|reason| reason.contains("did not create")));
        world.now = world.life.due().unwrap();
        world.input(Input::Due);
    }
    world.pass(Duration::from_secs(5));
    assert_eq!(world.life.status(), Status::Running);

    world.input(Input::Delete);
    world.save();
    world.input(Input::Hint);
    while let Some(op) = world.pending.take() {
        let outcome = if op == Op::Look { foreign() } else { Outcome::Done };
        world.input(Input::Ended(op, outcome));
    }
    world.settle();
    assert!(world.forgotten);
}

#[test]
fn a_container_whose_network_is_gone_is_created_anew_once() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.run_op();
    for _ in 0..2 {
        assert_eq!(world.pending.take(), Some(Op::Start));
        world.input(Input::Ended(Op::Start, Outcome::Outdated("network x not found".into())));
        while world.pending.is_some_and(|op| op != Op::Start) {
            world.run_op();
        }
    }
    assert_eq!(world.life.status(), Status::Error);
    assert_eq!(world.life.reason(), Some("network x not found"));
}

#[test]
fn case_78_what_an_engine_refused_while_it_went_down_is_tried_when_it_returns() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.run_op();
    assert_eq!(world.pending.take(), Some(Op::Start));
    world.input(Input::Ended(Op::Start, Outcome::Refused("shutting down".into())));
    world.settle();
    assert_eq!(world.life.status(), Status::Error);
    world.input(Input::EngineLost);
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(5));
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn case_156_an_operation_that_went_wrong_is_an_error_and_the_next_start_works() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.run_op();
    assert_eq!(world.pending.take(), Some(Op::Start));
    world.input(Input::Ended(Op::Start, Outcome::Refused("An internal error".into())));
    world.settle();
    assert_eq!((world.life.status(), world.life.reason()), (Status::Error, Some("An internal error")));
    world.input(Input::Start);
    world.save();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.life.status(), Status::Running);
}

#[test]
fn an_operation_that_the_engine_did_not_take_is_tried_again() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.engine = false;
    world.pass(Duration::from_secs(10));
    assert_eq!(world.life.status(), Status::Deploying);
    world.engine = true;
    world.pass(Duration::from_secs(2));
    assert_eq!(world.told, [Status::Deploying, Status::Running]);
}

/// Deterministic, so that a failure can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn chaos(world: &mut World, dice: &mut Dice) {
    match dice.roll(23) {
        22 => world.lose(),
        16..=20 => world.input(Input::Sleep(if dice.roll(2) == 0 { Nap::Stop } else { Nap::Pause })),
        21 => world.input(Input::Wake),
        0 => world.input(Input::Start),
        1 => world.input(Input::Stop),
        2 => world.input(Input::Restart),
        3..=6 => world.run_op(),
        7 | 8 => world.save(),
        9 => {
            let mut up = world.up();
            if world.container == Real::Absent {
                up = Real::Absent;
            }
            world.outside_quietly(up, false);
        }
        10 => {
            let killed = dice.roll(2) == 0 && world.container.is_up();
            let end = if world.container == Real::Absent {
                Real::Absent
            } else {
                ended(dice.roll(3).cast_signed())
            };
            world.outside_quietly(end, killed);
        }
        11 => world.outside_quietly(Real::Absent, dice.roll(2) == 0),
        12 => {
            world.engine = !world.engine;
            world.input(if world.engine { Input::EngineBack } else { Input::EngineLost });
        }
        13 => world.answers = !world.answers,
        14 => world.crashes = !world.crashes,
        _ => {
            world.now += Duration::from_millis(dice.roll(9000));
            world.input(Input::Due);
        }
    }
}

impl World {
    /// The disk is full: the oldest change that was to be saved is not.
    fn lose(&mut self) {
        if !self.saves.is_empty() {
            self.saves.remove(0);
            self.input(Input::NotSaved);
        }
    }

    fn outside_quietly(&mut self, container: Real, killed: bool) {
        self.container = container;
        if killed {
            self.input(Input::Killed);
            self.input(Input::Died(137));
        }
        self.input(Input::Hint);
    }
}

#[test]
fn the_last_command_wins_whatever_was_under_way() {
    for seed in 1..=3000 {
        let mut dice = Dice(u64::MAX / seed);
        let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
        let (mut last, mut stops) = (Input::Start, 0);
        for _ in 0..dice.roll(60) {
            match dice.roll(12) {
                command @ 0..=2 => {
                    last = [Input::Start, Input::Stop, Input::Restart][usize::try_from(command).unwrap()]
                        .clone();
                    world.input(last.clone());
                }
                3..=5 => {
                    stops += usize::from(world.pending == Some(Op::Stop) && world.engine);
                    world.run_op();
                }
                6 | 7 => world.save(),
                8 => {
                    world.engine = !world.engine;
                    world.input(if world.engine { Input::EngineBack } else { Input::EngineLost });
                }
                9 if stops > 0 => {
                    // The engine tells of our own stop, early or late.
                    stops -= 1;
                    world.input(Input::Killed);
                    world.input(Input::Hint);
                }
                _ => {
                    world.now += Duration::from_millis(dice.roll(900));
                    world.input(Input::Due);
                }
            }
        }
        world.engine = true;
        world.input(Input::EngineBack);
        world.pass(Duration::from_secs(120));
        let wanted = if last == Input::Stop { Status::Stopped } else { Status::Running };
        assert_eq!(world.life.status(), wanted, "seed {seed} after {last:?}: {:?}", world.life);
    }
}

#[test]
fn whatever_happened_when_faults_stop_the_status_is_the_truth() {
    let mut slept = [0, 0];
    for seed in 1..=3000 {
        let mut dice = Dice(u64::MAX / seed);
        let kind = if seed % 2 == 0 { Kind::Ours } else { Kind::Adopted };
        let desired = at_rest(kind);
        let mut world = World::new(kind, desired, NEVER_RAN);
        for _ in 0..dice.roll(120) {
            let before = world.life.asleep;
            chaos(&mut world, &mut dice);
            slept[usize::from(kind == Kind::Ours)] += usize::from(!before && world.life.asleep);
        }
        world.answers = true;
        world.crashes = false;
        if dice.roll(2) == 0 || !world.engine {
            world.engine = true;
            world.input(Input::EngineLost);
            world.input(Input::EngineBack);
        }
        world.pass(Duration::from_secs(120));
        let (status, up) = (world.life.status(), world.container.is_up());
        let true_word = match status {
            Status::Running => up,
            Status::Inactive => {
                let wakes = kind == Kind::Ours || world.container != Real::Absent;
                !up && wakes && world.life.asleep && world.life.saved == desired
            }
            _ => !up && matches!(status, Status::Stopped | Status::Error),
        };
        assert!(true_word, "seed {seed}: {status:?} while up is {up}: {:?}", world.life);
        assert_eq!(world.life.goal, Goal::Rest, "seed {seed}");
        let (known, stored) = ((world.life.asleep, world.life.saved_asleep), (world.asleep, world.asleep));
        assert_eq!(known, stored, "seed {seed}: {:?}", world.life);
        if kind == Kind::Ours && !matches!(status, Status::Error | Status::Inactive) {
            assert_eq!(world.life.saved == Desired::Running, up, "seed {seed}: {:?}", world.life);
        }
        if kind == Kind::Adopted {
            assert_eq!(world.life.saved, Desired::AsFound, "seed {seed}: {:?}", world.life);
        }
    }
    assert!(slept.iter().all(|slept| *slept > 30), "sleep was part of it: {slept:?}");
}

#[test]
fn case_132_who_is_put_to_sleep_is_inactive_at_once_and_woken_by_a_request() {
    for kind in KINDS {
        let mut world = World::running(kind);
        let (starts, told) = (world.starts, world.told.len());
        world.input(Input::Sleep(Nap::Stop));
        assert_eq!((world.life.status(), world.pending), (Status::Inactive, None), "durable first");
        world.pass(Duration::from_secs(3600));
        let slept = (world.life.status(), world.container.is_up(), world.starts - starts);
        assert_eq!(slept, (Status::Inactive, false, 0), "{kind:?}");
        assert!(world.asleep && world.life.desired() == at_rest(kind));
        world.input(Input::Wake);
        world.input(Input::Wake);
        world.pass(Duration::from_secs(10));
        let woken = (world.life.status(), world.starts - starts, world.asleep);
        assert_eq!(woken, (Status::Running, 1, false), "{kind:?}");
        assert_eq!(world.life.saved, at_rest(kind));
        assert_eq!(world.told[told..], [Status::Inactive, Status::Deploying, Status::Running]);
    }
}

#[test]
fn who_is_deleted_in_its_sleep_is_gone_whoever_asks_for_it_meanwhile() {
    for kind in KINDS {
        let mut world = World::running(kind);
        world.input(Input::Sleep(Nap::Stop));
        world.pass(Duration::from_secs(60));
        world.input(Input::Delete);
        world.input(Input::Wake);
        world.pass(Duration::from_secs(60));
        assert!(world.forgotten, "{kind:?}: {:?}", world.life);
    }
}

#[test]
fn who_failed_when_it_was_woken_can_be_woken_again() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Stop));
    world.pass(Duration::from_secs(60));
    world.crashes = true;
    world.input(Input::Wake);
    world.pass(Duration::from_secs(60));
    let reason = Some("Exited with code 1. Last output: boom");
    assert_eq!((world.life.status(), world.life.reason()), (Status::Error, reason));
    world.crashes = false;
    world.input(Input::Wake);
    world.pass(Duration::from_secs(10));
    assert_eq!((world.life.status(), world.life.reason()), (Status::Running, None));
}

#[test]
fn an_adopted_container_that_ended_in_its_own_way_when_it_was_put_to_sleep_sleeps_and_is_no_error() {
    for exit in [0, 1, 137, 143] {
        let mut world = World::running(Kind::Adopted);
        world.input(Input::Sleep(Nap::Stop));
        world.pass(Duration::from_secs(10));
        world.outside(ended(exit), false);
        world.life = Life::new(Kind::Adopted, Desired::AsFound, false, world.now).asleep(true);
        world.input(Input::EngineBack);
        world.pass(Duration::from_secs(60));
        assert_eq!((world.life.status(), world.life.reason()), (Status::Inactive, None), "{exit}");
        world.outside(Real::Absent, false);
        assert_eq!(world.life.status(), Status::Error, "there is nothing to wake");
    }
}

#[test]
fn case_85_an_adopted_container_that_is_removed_while_it_is_put_to_sleep_is_an_error() {
    let mut world = World::running(Kind::Adopted);
    world.input(Input::Sleep(Nap::Stop));
    world.save();
    assert_eq!(world.pending, Some(Op::Stop));
    world.container = Real::Absent;
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.asleep), (Status::Error, false));
    assert_eq!(world.life.reason(), Some("The container does not exist any more"));
}

#[test]
fn an_adopted_container_that_sleeps_is_up_again_when_its_project_is_deleted() {
    for (nap, operations) in [Nap::Stop, Nap::Pause].into_iter().flat_map(|nap| (0..4).map(move |n| (nap, n)))
    {
        let mut world = World::running(Kind::Adopted);
        world.input(Input::Sleep(nap));
        for _ in 0..operations {
            world.save();
            world.run_op();
        }
        world.input(Input::Delete);
        world.pass(Duration::from_secs(60));
        assert!(world.forgotten && world.container.is_up(), "{nap:?} after {operations}: {:?}", world.life);
    }
    let mut world = World::running(Kind::Adopted);
    world.input(Input::Stop);
    world.pass(Duration::from_secs(60));
    world.input(Input::Delete);
    world.pass(Duration::from_secs(60));
    assert!(world.forgotten && !world.container.is_up(), "what a person stopped stays so");
}

#[test]
fn case_98_who_was_woken_from_outside_while_the_disk_was_full_is_recorded_as_awake_later() {
    for kind in KINDS {
        let mut world = World::running(kind);
        world.input(Input::Sleep(Nap::Stop));
        world.pass(Duration::from_secs(60));
        world.container = world.up();
        world.input(Input::Hint);
        world.run_op();
        world.lose();
        world.pass(Duration::from_secs(60));
        assert_eq!((world.life.status(), world.asleep), (Status::Running, false), "{kind:?}");
    }
}

#[test]
fn a_wake_of_an_adopted_container_that_muelle_did_not_live_to_see_the_end_of_is_asked_whether_it_answers() {
    let mut world = World::new(Kind::Adopted, Desired::Running, Real::Absent);
    world.answers = false;
    world.container = world.up();
    world.pass(Duration::from_secs(5));
    assert_eq!(world.life.status(), Status::Deploying);
    world.answers = true;
    world.pass(Duration::from_secs(5));
    assert_eq!((world.life.status(), world.life.saved), (Status::Running, Desired::AsFound));
}

#[test]
fn case_146_a_start_or_a_request_right_after_the_decision_to_sleep_ends_with_it_running() {
    for command in [Input::Start, Input::Wake, Input::Restart] {
        for operations in 0..4 {
            let mut world = World::running(Kind::Ours);
            world.input(Input::Sleep(Nap::Stop));
            for _ in 0..operations {
                world.save();
                world.run_op();
            }
            world.input(command.clone());
            world.pass(Duration::from_secs(60));
            let end = (world.life.status(), world.container.is_up(), world.asleep);
            assert_eq!(end, (Status::Running, true, false), "{command:?} after {operations}");
            assert_eq!(world.told[..2], [Status::Running, Status::Inactive], "{command:?}");
            assert!(!world.told.contains(&Status::Stopped), "{:?}", world.told);
        }
    }
}

#[test]
fn who_is_frozen_is_thawed_by_a_request_and_one_that_raced_it_is_served() {
    for (operations, kind) in (0..5).flat_map(|operations| KINDS.map(|kind| (operations, kind))) {
        let mut world = World::running(kind);
        let starts = world.starts;
        world.input(Input::Sleep(Nap::Pause));
        for _ in 0..operations {
            world.save();
            world.run_op();
        }
        assert_eq!(world.life.status(), Status::Inactive);
        world.input(Input::Wake);
        world.pass(Duration::from_secs(10));
        assert_eq!((world.life.status(), world.starts, world.asleep), (Status::Running, starts, false));
    }
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Pause));
    world.pass(Duration::from_secs(3600));
    assert_eq!((&world.container, world.life.status()), (&Real::Paused, Status::Inactive));
    world.input(Input::EngineLost);
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(60));
    assert_eq!((&world.container, world.life.status()), (&Real::Paused, Status::Inactive));
    world.input(Input::Stop);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.container.is_up(), world.starts), (Status::Stopped, false, 0));
}

#[test]
fn a_restart_of_what_is_frozen_is_one() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Pause));
    world.pass(Duration::from_secs(60));
    world.input(Input::Restart);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.starts), (Status::Running, 1));
}

#[test]
fn a_wake_that_cannot_be_saved_leaves_it_asleep_and_the_next_one_works() {
    for kind in KINDS {
        let mut world = World::running(kind);
        let (starts, told) = (world.starts, world.told.len());
        world.input(Input::Sleep(Nap::Stop));
        world.pass(Duration::from_secs(60));
        world.input(Input::Wake);
        world.saves.clear();
        world.input(Input::NotSaved);
        world.pass(Duration::from_secs(60));
        assert_eq!((world.life.status(), world.starts - starts), (Status::Inactive, 0), "{kind:?}");
        assert!(!world.told[told..].contains(&Status::Stopped), "{:?}", world.told);
        world.input(Input::Wake);
        world.pass(Duration::from_secs(60));
        assert_eq!((world.life.status(), world.starts - starts), (Status::Running, 1), "{kind:?}");
    }
}

#[test]
fn what_only_was_taken_for_ready_does_not_speak_and_what_answered_does() {
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.readiness = Readiness::Http { port: 80, named: false };
    world.answers = false;
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.life.speaks()), (Status::Running, false));
    assert!(!World::new(Kind::Ours, Desired::Running, NEVER_RAN).life.speaks());
    let mut world = World::new(Kind::Ours, Desired::Running, NEVER_RAN);
    world.pass(Duration::from_secs(60));
    assert!(world.life.speaks() && world.life.serves());
    world.input(Input::Stop);
    assert!(!world.life.serves(), "nobody is let in any more");
}

#[test]
fn what_sleeps_stays_asleep_when_the_engine_or_muelle_come_back() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Stop));
    world.pass(Duration::from_secs(10));
    world.input(Input::EngineLost);
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.starts), (Status::Inactive, 0));
    world.life = Life::new(Kind::Ours, Desired::Running, false, world.now).asleep(true);
    assert_eq!(world.life.status(), Status::Inactive, "before anybody has looked");
    world.input(Input::EngineBack);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.starts), (Status::Inactive, 0));
    world.input(Input::Wanted);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.life.status(), Status::Inactive, "a new version is not a request");
}

#[test]
fn what_sleeps_and_is_started_by_somebody_else_is_awake_and_what_is_stopped_by_a_person_is_not_woken() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Stop));
    world.pass(Duration::from_secs(10));
    let up = world.up();
    world.outside(up, false);
    assert_eq!((world.life.status(), world.asleep), (Status::Running, false));
    world.input(Input::Sleep(Nap::Stop));
    world.pass(Duration::from_secs(10));
    world.input(Input::Stop);
    world.pass(Duration::from_secs(10));
    assert_eq!((world.life.status(), world.asleep), (Status::Stopped, false));
    world.input(Input::Wake);
    world.pass(Duration::from_secs(10));
    assert_eq!((world.life.status(), world.starts), (Status::Stopped, 0));
}

#[test]
fn what_cannot_be_stopped_or_saved_does_not_sleep() {
    let mut world = World::running(Kind::Ours);
    world.input(Input::Sleep(Nap::Stop));
    world.save();
    assert_eq!(world.pending.take(), Some(Op::Stop));
    world.input(Input::Ended(Op::Stop, Outcome::Refused("no".into())));
    world.settle();
    assert_eq!((world.life.status(), world.asleep), (Status::Running, false));
    assert_eq!(world.told, [Status::Running, Status::Inactive, Status::Running]);
    let mut woken = World::running(Kind::Ours);
    woken.input(Input::Sleep(Nap::Stop));
    woken.save();
    assert_eq!(woken.pending.take(), Some(Op::Stop));
    woken.input(Input::Wake);
    woken.input(Input::Ended(Op::Stop, Outcome::Refused("no".into())));
    woken.settle();
    assert_eq!(woken.told, [Status::Running, Status::Inactive, Status::Deploying, Status::Running]);
    world.input(Input::Sleep(Nap::Stop));
    world.saves.clear();
    world.input(Input::NotSaved);
    world.pass(Duration::from_secs(60));
    assert_eq!((world.life.status(), world.container.is_up()), (Status::Running, true));
}

#[test]
fn a_project_that_was_not_built_stays_down_and_says_why() {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.life = Life::new(Kind::Ours, Desired::Running, false, world.now).unbuilt();
    assert_eq!(world.life.status(), Status::Stopped);
    world.pending = None;
    world.input(Input::NotBuilt("no Dockerfile".into()));
    world.input(Input::EngineBack);
    world.settle();
    assert_eq!((world.life.status(), world.life.reason()), (Status::Error, Some("no Dockerfile")));
    world.input(Input::Start);
    world.settle();
    assert_eq!(world.starts, 0, "there is nothing to start");
    assert_eq!(world.container, Real::Absent);
    world.input(Input::Delete);
    world.settle();
    assert!(world.forgotten);
}

#[test]
fn a_version_that_was_replaced_drains_then_ends_with_its_grace_and_goes() {
    let mut world = up_world();
    let drain = Duration::from_secs(10);
    world.input(Input::Retire(drain));
    world.settle();
    assert!(world.container.is_up(), "it serves those who still come");
    assert_eq!(world.life.due(), Some(world.now + drain));
    world.now += drain;
    world.input(Input::Due);
    assert_eq!(world.pending, Some(Op::Stop), "not removed while it runs");
    world.settle();
    assert_eq!((world.container.clone(), world.forgotten), (Real::Absent, true));
}

#[test]
fn a_version_that_was_replaced_goes_also_when_a_change_of_its_project_was_being_saved() {
    let mut world = up_world();
    world.input(Input::Stop);
    world.saves.clear();
    world.pending = None;
    world.input(Input::Retire(Duration::ZERO));
    world.input(Input::Due);
    world.settle();
    assert_eq!((world.container.clone(), world.forgotten), (Real::Absent, true));
}

#[test]
fn what_is_to_go_while_its_container_is_being_created_leaves_none() {
    for input in [Input::Retire(Duration::ZERO), Input::Delete] {
        for answered in [true, false] {
            let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
            world.run_op();
            assert_eq!(world.pending, Some(Op::Create));
            world.input(input.clone());
            if answered {
                world.run_op();
            } else {
                // It was made, and the answer was lost.
                world.container = NEVER_RAN;
                world.pending = None;
                world.input(Input::Ended(Op::Create, Outcome::Unavailable));
                world.pass(RETRY_AFTER);
            }
            world.settle();
            assert_eq!(
                (world.container.clone(), world.forgotten),
                (Real::Absent, true),
                "{input:?} {answered}"
            );
        }
    }
}

#[test]
fn a_crash_is_told_until_it_is_asked_to_come_up_again() {
    let mut world = up_world();
    assert_eq!(world.life.crash(), None);
    world.container = ended(1);
    world.input(Input::Hint);
    world.settle();
    assert!(world.life.crash().is_some_and(|how| how.starts_with("Exited with code 1")));
    world.input(Input::Start);
    assert_eq!(world.life.crash(), None);
    let mut stopped = up_world();
    stopped.input(Input::Stop);
    stopped.settle();
    assert_eq!(stopped.life.crash(), None, "a person wanted that");
}

/// One of ours that runs and is ready.
fn up_world() -> World {
    let mut world = World::new(Kind::Ours, Desired::Running, Real::Absent);
    world.settle();
    assert_eq!(world.life.status(), Status::Running);
    world
}
