use std::collections::BTreeSet;

use super::*;

/// Ports from 9000, all free.
struct Free;

impl Ports for Free {
    fn free(&self, count: u32, base: Option<u16>) -> Result<Vec<u16>> {
        let base = base.unwrap_or(9_000);
        Ok((base..).take(count as usize).collect())
    }

    fn cluster_id(&self) -> Result<String> {
        Ok("c-1".into())
    }
}

fn small() -> Wanted {
    Wanted { metads: Some(1), storageds: Some(2), replicas: Some(2), ..Wanted::default() }
}

/// The small cluster with a mount on /m.
fn mounted() -> ClusterFile {
    let mut file = resolve(&small(), None, &Free).unwrap();
    let mount = Process { mount_point: Some("/m".into()), ..Process::new(Role::Fuse, 0) };
    file.processes.push(mount);
    file
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn all_up(file: &ClusterFile) -> World {
    let up = Facts { configured: true, formatted: true, runs: true, stale_mount: false };
    World { has_keys: true, processes: file.processes.iter().map(|p| (p.name(), up)).collect() }
}

#[test]
fn a_new_cluster_takes_every_step_in_order() {
    let file = mounted();
    let servers = vec![name("metad/0"), name("storaged/0"), name("storaged/1")];
    let mut expected = vec![Step::SaveClusterFile, Step::MakeKeys];
    for server in &servers {
        expected.extend([Step::WriteConfig(*server), Step::Format(*server)]);
    }
    expected.extend([
        Step::WriteConfig(name("fuse/0")),
        Step::Start(vec![name("metad/0")]),
        Step::Start(vec![name("storaged/0"), name("storaged/1")]),
        Step::WaitReady(servers),
        Step::Provide { replicas: 2 },
        Step::WaitServing,
        Step::Start(vec![name("fuse/0")]),
        Step::WaitReady(vec![name("fuse/0")]),
        Step::WaitWhole,
    ]);
    assert_eq!(plan(&file, None, &World::default()), expected);
}

#[test]
fn a_second_run_starts_nothing() {
    let file = mounted();
    let again = resolve(&small(), Some(&file), &Free).unwrap();
    assert_eq!(again, file);
    let steps = plan(&again, Some(&file), &all_up(&file));
    assert!(!steps.iter().any(Step::starts), "{steps:?}");
    assert!(!steps.contains(&Step::SaveClusterFile));
}

#[test]
fn only_what_is_down_is_started_and_nothing_is_formatted_twice() {
    let file = resolve(&small(), None, &Free).unwrap();
    let mut world = all_up(&file);
    world.processes.get_mut(&name("storaged/1")).unwrap().runs = false;
    let steps = plan(&file, Some(&file), &world);
    let started: Vec<_> = steps.iter().filter(|step| step.starts()).collect();
    assert_eq!(started, [&Step::Start(vec![name("storaged/1")])]);
}

#[test]
fn an_interrupted_first_run_goes_on_where_it_stopped() {
    let file = resolve(&small(), None, &Free).unwrap();
    let mut world = World { has_keys: true, ..World::default() };
    let metad = Facts { configured: true, formatted: true, ..Facts::default() };
    world.processes.insert(name("metad/0"), metad);
    world.processes.insert(name("storaged/0"), Facts { configured: true, ..Facts::default() });
    let steps = plan(&file, Some(&file), &world);
    assert_eq!(steps[0], Step::Format(name("storaged/0")));
    assert_eq!(steps[1], Step::WriteConfig(name("storaged/1")));
    assert!(steps.contains(&Step::Start(vec![name("metad/0")])));
}

#[test]
fn a_mount_whose_process_died_is_cleared_first() {
    let file = mounted();
    let mut world = all_up(&file);
    let dead = Facts { configured: true, stale_mount: true, ..Facts::default() };
    world.processes.insert(name("fuse/0"), dead);
    let steps = plan(&file, Some(&file), &world);
    let clear = steps.iter().position(|step| *step == Step::ClearMount("/m".into())).unwrap();
    assert_eq!(steps[clear + 1], Step::Start(vec![name("fuse/0")]));
}

#[test]
fn storage_servers_can_be_added_and_the_rest_is_fixed() {
    let file = resolve(&small(), None, &Free).unwrap();
    let more = Wanted { storageds: Some(3), base_port: Some(9_500), ..Wanted::default() };
    let grown = resolve(&more, Some(&file), &Free).unwrap();
    assert_eq!(grown.of(Role::Storaged).count(), 3);
    assert_eq!(grown.processes[..3], file.processes[..]);
    assert_eq!(grown.find(name("storaged/2")).unwrap().port, 9_500);
    let fewer = Wanted { storageds: Some(1), ..Wanted::default() };
    let error = resolve(&fewer, Some(&file), &Free).unwrap_err().to_string();
    assert!(error.contains("has 2 storage servers") && error.contains("--storaged"), "{error}");
    for changed in [
        Wanted { metads: Some(3), ..Wanted::default() },
        Wanted { replicas: Some(3), ..Wanted::default() },
        Wanted { disks: Some(5), ..Wanted::default() },
        Wanted { tcp: true, ..Wanted::default() },
        Wanted { transport: Some(Transport::Rdma), ..Wanted::default() },
        Wanted { disk_size: Some(ByteSize(1 << 30)), ..Wanted::default() },
    ] {
        let error = resolve(&changed, Some(&file), &Free).unwrap_err().to_string();
        assert!(error.contains("cannot be changed"), "{error}");
    }
}

#[test]
fn no_port_is_given_twice_and_defaults_fit_each_other() {
    let file = resolve(&Wanted::default(), None, &Free).unwrap();
    assert_eq!((file.of(Role::Metad).count(), file.of(Role::Storaged).count()), (3, 4));
    let ports: Vec<u16> = file.processes.iter().flat_map(Process::ports).collect();
    assert_eq!(ports.len(), 3 * 3 + 4 * 2);
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    let two = Wanted { storageds: Some(2), ..Wanted::default() };
    assert_eq!(resolve(&two, None, &Free).unwrap().replicas, 2);
    let none = Wanted { storageds: Some(0), ..Wanted::default() };
    let keys_only = resolve(&none, None, &Free).unwrap();
    assert!(!plan(&keys_only, None, &World::default()).contains(&Step::WaitServing));
    let too_many = Wanted { storageds: Some(2), replicas: Some(3), ..Wanted::default() };
    assert!(resolve(&too_many, None, &Free).is_err());
}
