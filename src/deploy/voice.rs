//! What is said during a deployment: all of it to its log, and of what comes fast only the newest to those who watch.

use std::time::Instant;

use super::worker::PERCENT_BUILD;
use crate::domain::{Level, Step};
use crate::limits;
use crate::runtime::Told;
use crate::store::Log;

/// Speaks for one deployment.
pub(super) struct Voice {
    tell: Box<dyn Fn(Told)>,
    log: Option<Log>,
    step: Step,
    percent: u8,
    /// The newest line that nobody was told yet.
    pending: Option<String>,
    /// When the next may be told.
    free_at: Instant,
}

impl Voice {
    pub fn new(tell: Box<dyn Fn(Told)>, log: Option<Log>) -> Voice {
        Voice { tell, log, step: Step::Queued, percent: 0, pending: None, free_at: Instant::now() }
    }

    /// Tells something that is no line.
    pub fn tell(&mut self, told: Told) {
        self.flush();
        (self.tell)(told);
    }

    /// Tells the last thing there is.
    pub fn end(mut self, told: Told) {
        // Closed before those are told who read it.
        self.log = None;
        self.tell(told);
    }

    /// A line of muelle's own, at the beginning or the end of something.
    pub fn say(&mut self, step: Step, percent: u8, message: &str) {
        self.flush();
        (self.step, self.percent) = (step, percent);
        self.line(message);
        self.flush();
    }

    /// A line of what is done at present.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.trim_start().is_empty() {
            return;
        }
        if let Some(log) = &mut self.log {
            log.line(line);
        }
        // Who watches is to see the step that takes long, not the id of its container.
        if BOOKKEEPING.iter().any(|beginning| line.starts_with(beginning)) {
            return;
        }
        self.pending = Some(line.chars().take(limits::PROGRESS_CHARS_MAX).collect());
        if self.free_at <= Instant::now() {
            self.flush();
        }
    }

    /// A line of the engine's; its numbers of steps say how far it is.
    pub fn build_line(&mut self, line: &str) {
        let (first, last) = PERCENT_BUILD;
        if let Some((step, steps)) = step_of(line) {
            let share = u32::from(last - first) * (step - 1).min(steps) / steps;
            let percent = first + u8::try_from(share).unwrap_or_default();
            self.percent = self.percent.max(percent.min(last));
        }
        self.line(line);
    }

    /// When what waits is to be told.
    pub fn due(&self) -> Option<Instant> {
        self.pending.as_ref().map(|_| self.free_at)
    }

    /// Tells what waits.
    pub fn flush(&mut self) {
        if let Some(message) = self.pending.take() {
            let (step, percent) = (self.step, self.percent);
            (self.tell)(Told::Progress { step, percent, message, level: Level::Info });
            self.free_at = Instant::now() + limits::PROGRESS_EVERY;
        }
    }
}

/// What the engine says between the steps of a build, by its beginning.
const BOOKKEEPING: [&str; 2] = [" ---> ", "Removing intermediate container "];

/// The numbers in `Step 3/7 : RUN npm ci`.
fn step_of(line: &str) -> Option<(u32, u32)> {
    let (numbers, _) = line.strip_prefix("Step ")?.split_once(" :")?;
    let (step, steps) = numbers.split_once('/')?;
    let (step, steps) = (step.parse().ok()?, steps.parse().ok()?);
    (1 <= step && step <= steps).then_some((step, steps))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn lines_that_come_fast_are_told_as_the_newest_one_and_the_number_never_goes_back() {
        let told: Rc<RefCell<Vec<(u8, String)>>> = Rc::default();
        let out = Rc::clone(&told);
        let mut voice = Voice::new(
            Box::new(move |told| {
                if let Told::Progress { percent, message, .. } = told {
                    out.borrow_mut().push((percent, message));
                }
            }),
            None,
        );
        voice.say(Step::Build, 20, "begins");
        for n in 1..=1000 {
            voice.build_line(&format!("Step 2/4 : line {n}"));
        }
        voice.build_line("Step 1/4 : forged");
        assert!(voice.due().is_some());
        voice.say(Step::Build, 85, "ends");
        let told = told.borrow();
        assert_eq!(told.first().unwrap(), &(20, "begins".to_owned()));
        assert_eq!(told.last().unwrap(), &(85, "ends".to_owned()));
        assert!(told.contains(&(36, "Step 1/4 : forged".to_owned())), "{told:?}");
        assert!(told.len() < 100, "{} of 1003", told.len());
        assert!(told.is_sorted_by_key(|(percent, _)| *percent));
    }

    #[test]
    fn a_step_that_takes_long_is_what_is_seen_of_it() {
        let told: Rc<RefCell<Vec<String>>> = Rc::default();
        let out = Rc::clone(&told);
        let tell = move |told| {
            if let Told::Progress { message, .. } = told {
                out.borrow_mut().push(message);
            }
        };
        let mut voice = Voice::new(Box::new(tell), None);
        for line in ["Step 1/2 : FROM x", " ---> 3f9c", "Step 2/2 : RUN npm ci", " ---> Running in 8e5e"] {
            voice.build_line(line);
            voice.flush();
        }
        assert_eq!(*told.borrow(), ["Step 1/2 : FROM x", "Step 2/2 : RUN npm ci"]);
    }

    #[test]
    fn a_step_is_told_from_other_lines() {
        for (line, numbers) in [
            ("Step 3/7 : RUN npm ci", Some((3, 7))),
            ("Step 8/7 : x", None),
            ("Step 0/0 : x", None),
            ("Step x/7 : x", None),
            (" ---> Running in 3f9c", None),
        ] {
            assert_eq!(step_of(line), numbers, "{line}");
        }
    }
}
