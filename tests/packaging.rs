//! What finwheel is delivered in is right by the judges of each kind of file: Kubernetes' and Compose's schemas, hadolint,
//! systemd. A judge that is not installed is named, and its test skips (scripts/setup.sh installs them).

use finwheel::rig::{Rig, RigConfig, SERVER_INTERFACE};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs a tool, from beside the build or from PATH. `None` when there is none; it is then said.
fn tool(name: &str, args: &[&str]) -> Option<Output> {
    let beside = root().join("target/tools/bin").join(name);
    let program = if beside.exists() { beside.as_os_str() } else { name.as_ref() };
    match Command::new(program).args(args).current_dir(root()).output() {
        Ok(out) => Some(out),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            println!("skipped: {name} is not installed");
            None
        }
        Err(e) => panic!("{name}: {e}"),
    }
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned()
}

/// The judge must be content.
#[track_caller]
fn accepts(name: &str, args: &[&str]) {
    if let Some(out) = tool(name, args) {
        assert!(out.status.success(), "{name} {args:?}: {}", said(&out));
    }
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The manifests as the cluster gets them, if kubectl can put them together; else the files.
fn manifests(dir: &Path) -> Vec<PathBuf> {
    let kubectl = Command::new("kubectl").args(["kustomize", utf8(&deploy("kubernetes"))]).output();
    let Ok(out) = kubectl else {
        return ["namespace.yaml", "daemonset.yaml"].iter().map(|n| deploy("kubernetes").join(n)).collect();
    };
    assert!(out.status.success(), "{}", said(&out));
    let text = String::from_utf8(out.stdout).expect("UTF-8");
    for part in ["kind: Namespace", "kind: ConfigMap", "kind: DaemonSet", "[[listener]]", "image: finwheel:"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let path = dir.join("all.yaml");
    std::fs::write(&path, text).expect("written");
    vec![path]
}

#[test]
fn kubernetes_takes_the_manifests_and_refuses_what_is_wrong_with_them() {
    let dir = tempfile::tempdir().expect("a directory");
    for file in manifests(dir.path()) {
        let Some(out) = tool("kubernetes-validate", &["--strict", utf8(&file)]) else { return };
        assert!(out.status.success(), "{}", said(&out));
    }
    // The judge can say no.
    let wrong = read(&deploy("kubernetes/daemonset.yaml"))
        .replace("readOnlyRootFilesystem", "readOnlyRootFileSystem");
    let path = dir.path().join("wrong.yaml");
    std::fs::write(&path, wrong).expect("written");
    let out = tool("kubernetes-validate", &["--strict", utf8(&path)]).expect("it was there");
    assert!(!out.status.success(), "{}", said(&out));
}

#[test]
fn the_pod_is_not_privileged_and_is_scraped_by_the_port_that_it_has() {
    let pod = read(&deploy("kubernetes/daemonset.yaml"));
    assert!(
        !pod.contains("privileged:") && pod.contains("drop: [ALL]") && pod.contains("runAsNonRoot: true")
    );
    let monitor = read(&deploy("kubernetes/monitoring/podmonitor.yaml"));
    assert!(monitor.contains("- port: metrics") && pod.contains("- name: metrics"));
}

#[test]
fn the_configuration_for_kubernetes_is_right() {
    let file = deploy("kubernetes/finwheel.toml");
    let out = Command::new(env!("CARGO_BIN_EXE_finwheel"))
        .args(["check", "-c", utf8(&file)])
        .output()
        .expect("runs");
    assert!(out.status.success(), "{}", said(&out));
}

#[test]
fn compose_takes_the_file() {
    accepts("check-jsonschema", &["--builtin-schema", "vendor.compose-spec", utf8(&deploy("compose.yaml"))]);
}

#[test]
fn hadolint_has_nothing_to_say_of_the_dockerfile() {
    accepts("hadolint", &["Dockerfile"]);
}

#[test]
fn the_image_puts_on_the_file_exactly_the_capabilities_that_are_documented() {
    let needed = finwheel::port::xsk::NEEDED.iter().map(|c| c.as_str()).chain(["CAP_IPC_LOCK"]);
    let needed: Vec<String> = needed.map(str::to_lowercase).collect();
    let dockerfile = read(&root().join("Dockerfile"));
    assert!(dockerfile.contains(&format!("setcap {}=p ", needed.join(","))), "{dockerfile}");
    assert!(dockerfile.contains("\nUSER 65532:65532\n") && dockerfile.contains("\nSTOPSIGNAL SIGTERM\n"));
    let documented = read(&deploy("README.md"));
    for c in needed {
        assert!(documented.contains(&format!("| `{}` |", c.to_uppercase())), "{c}");
    }
}

#[test]
fn systemd_takes_the_unit() {
    let dir = tempfile::tempdir().expect("a directory");
    // It looks for the program that is to be started.
    let unit = read(&deploy("systemd/finwheel.service"))
        .replace("/usr/local/bin/finwheel", env!("CARGO_BIN_EXE_finwheel"));
    let path = dir.path().join("finwheel.service");
    std::fs::write(&path, &unit).expect("written");
    let Some(out) = tool("systemd-analyze", &["verify", "--man=no", utf8(&path)]) else { return };
    assert!(out.status.success() && !said(&out).contains("finwheel.service:"), "{}", said(&out));
    std::fs::write(&path, unit.replace("NoNewPrivileges=yes", "NoNewPrivilege=yes")).expect("written");
    let out = tool("systemd-analyze", &["verify", "--man=no", utf8(&path)]).expect("it was there");
    assert!(said(&out).contains("NoNewPrivilege"), "{}", said(&out));
}

#[test]
fn scripts_are_bash() {
    for script in
        ["scripts/setup.sh", "scripts/image.sh", "scripts/test.sh", "deploy/tuning/finwheel-tune.sh"]
    {
        accepts("bash", &["-n", script]);
    }
}

#[test]
fn tuning_is_shown_applied_and_undone() {
    let rig = match Rig::new(RigConfig::default()) {
        Ok(rig) => rig,
        Err(e) if e.is_privilege() => {
            println!("skipped: {e}");
            return;
        }
        Err(e) => panic!("{e}"),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let tune = |verb: &str| {
        let mut command = rig.server_ns().command(deploy("tuning/finwheel-tune.sh"));
        let out = command
            .args([verb, SERVER_INTERFACE])
            .env("FINWHEEL_TUNE_DIR", dir.path())
            .output()
            .expect("it runs");
        assert!(out.status.success(), "{verb}: {}", said(&out));
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let range = || {
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        rig.server_ns().run_in(read).expect("entered").expect("read")
    };
    rig.server_ns().sysctl("net/ipv4/ip_local_port_range", "2000 3000").expect("set");
    let shown = tune("show");
    assert!(shown.contains("ports    2000 3000 -> 32768 60999: "), "{shown}");
    assert_eq!(range(), "2000\t3000\n", "showing changes nothing");
    tune("apply");
    assert_eq!(range(), "32768\t60999\n");
    // Applied twice, it still knows what was there at first.
    rig.server_ns().sysctl("net/ipv4/ip_local_port_range", "5000 6000").expect("set");
    tune("apply");
    let undone = tune("undo");
    assert!(undone.contains("ports    back to 2000 3000"), "{undone}");
    assert_eq!(range(), "2000\t3000\n");
    assert!(!dir.path().join(SERVER_INTERFACE).exists(), "nothing is kept");
}
