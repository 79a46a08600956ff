//! What the fuzz targets of `tests/fuzz` reach of this module's inside; there only when they are built.

use std::io::{self, Read};

use ureq::Agent;

use super::build::Transcript;
use super::{ApiReading, Error, Events, Finished, Image, Inspected, Listed, LogLine, frames, parse, wire};

/// See [`super::Docker::logs`].
///
/// # Errors
/// As there.
pub fn log_tail(source: impl Read, framed: bool, keep: usize) -> io::Result<Vec<LogLine>> {
    frames::read_tail(source, framed, keep).map(Vec::from)
}

/// See [`super::Docker::events`].
pub fn events(stream: impl Read + Send + 'static) -> Events {
    thread_local!(static AGENT: Agent = Agent::new_with_defaults());
    Events::open(AGENT.with(Agent::clone), stream).0
}

/// See [`super::Build::run`].
pub fn build(answer: impl Read, line: &mut dyn FnMut(&str)) -> Finished {
    let mut transcript = Transcript::new(line);
    let result = transcript.read(answer);
    transcript.finish(result)
}

/// See [`super::Docker::list`].
///
/// # Errors
/// As there.
pub fn list(json: &[u8]) -> Result<Vec<Listed>, Error> {
    parse::<Vec<wire::Row>>(json)?.into_iter().filter_map(|row| row.into_listed().transpose()).collect()
}

/// See [`super::Docker::inspect`].
///
/// # Errors
/// As there.
pub fn inspect(json: &[u8]) -> Result<Inspected, Error> {
    parse::<wire::Inspect>(json)?.into_inspected()
}

/// See [`super::Docker::image`].
///
/// # Errors
/// As there.
pub fn image(json: &[u8]) -> Result<Image, Error> {
    parse::<wire::ImageInspect>(json)?.into_image()
}

/// See [`super::Docker::stats`].
///
/// # Errors
/// As there.
pub fn stats(json: &[u8]) -> Result<Option<ApiReading>, Error> {
    Ok(parse::<wire::Stats>(json)?.into_reading())
}
