//! The counters of a busy container, by its cgroup files and by the engine.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use muelle::docker::{Docker, Spec};
use muelle::domain::{ContainerName, EnvName, ImageRef, ProjectId};
use muelle::host::{Cgroup, Error, Roots};

use crate::harness::image::{TestImage, socket, unique};

#[test]
fn a_busy_container_is_measured_by_its_cgroup_as_the_engine_measures_it() {
    let docker = Docker::new(&socket());
    let image = TestImage::new(&[]);
    let busy = "x=$(busybox head -c 8000000 /dev/zero | busybox tr '\\0' x); while :; do :; done";
    let id = docker
        .create(&Spec {
            name: ContainerName::parse(&unique("muelle-test")).unwrap(),
            image: ImageRef::parse(&image.0).unwrap(),
            project: ProjectId(7),
            deployment: None,
            instance: "test".to_owned(),
            network: "none".to_owned(),
            publish: None,
            port: None,
            env: BTreeMap::from([(EnvName::parse("RUN").unwrap(), busy.to_owned())]),
            memory_mb: 128,
            cpus: Some(0.5),
        })
        .unwrap();
    docker.start(&id).unwrap();
    let pid = docker.inspect(&id).unwrap().pid.unwrap();
    let cgroup = Cgroup::resolve(&Roots::default(), pid, id.as_str()).unwrap();
    let first = cgroup.read().unwrap();

    // 0.4 s of CPU at half a CPU: the memory is filled by then.
    let deadline = Instant::now() + Duration::from_secs(60);
    while cgroup.read().unwrap().cpu_ns < first.cpu_ns + 400_000_000 {
        assert!(Instant::now() < deadline, "from {first:?} only to {:?}", cgroup.read());
        std::thread::yield_now();
    }
    let ours = cgroup.read().unwrap();
    let theirs = docker.stats(&id).unwrap().unwrap();
    assert!(theirs.cpu_ns >= ours.cpu_ns, "{theirs:?} was read after {ours:?}");
    assert!(ours.memory_bytes.abs_diff(theirs.memory_bytes) < 4 << 20, "{ours:?} against {theirs:?}");

    assert!(matches!(
        Cgroup::resolve(&Roots::default(), std::process::id(), id.as_str()),
        Err(Error::Unreadable(_))
    ));
    docker.remove(&id, true).unwrap();
    assert_eq!(cgroup.read(), Err(Error::Gone));
    assert_eq!(Cgroup::resolve(&Roots::default(), pid, id.as_str()), Err(Error::Gone));
}
