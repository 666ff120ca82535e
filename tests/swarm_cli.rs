//! `qis swarm` as its founder calls it: what it prints, what it leaves on the disk, how it ends.

use qis::net::{Identity, PeerId};
use qis::node::NodeKey;
use qis::packet::{AuthorKey, hex};
use qis::run::AuthorFile;
use qis::run::swarm::load;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn qis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_qis")).arg("swarm").args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(arguments: &[&str]) -> String {
    let output = qis(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&done(&[arguments, &["--json"]].concat())).unwrap()
}

/// The run ends with `code`, and its error output contains each of `words`.
fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = qis(arguments);
    // Messages are wrapped for the terminal; words may be broken over lines.
    let squeeze =
        |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace() && *c != '│').collect() };
    let said = squeeze(&text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    for word in words {
        assert!(
            said.contains(&squeeze(word)),
            "{arguments:?} does not say `{word}`: {}",
            text(&output.stderr)
        );
    }
    assert!(!said.contains("panicked"), "{said}");
}

fn peer(seed: u8) -> PeerId {
    Identity::from_seed([seed; 32]).peer_id()
}

fn author(seed: u8) -> String {
    hex(AuthorKey::from_seed([seed; 32]).public())
}

fn now_ms() -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

struct Swarm(tempfile::TempDir);

impl Swarm {
    fn new() -> Swarm {
        let swarm = Swarm(tempfile::tempdir().unwrap());
        done(&["create", &swarm.folder()]);
        swarm
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
    fn folder(&self) -> String {
        self.path("ward")
    }
}

#[test]
fn nodes_and_authors_are_admitted_extended_and_revoked() {
    let swarm = Swarm::new();
    let folder = swarm.folder();
    let me = swarm.path("me.json");
    let my_key = *AuthorFile::open(me.as_ref()).unwrap().key().public();
    let before = fs::read(&me).unwrap();
    let (first, second) = (peer(1).to_string(), peer(2).to_string());

    let said = done(&["admit", &folder, "--node", &first, &second, "--author", &author(1), "--author", &me]);
    assert!(said.contains(&format!("admitted node {second} without end")), "{said}");
    assert!(said.contains(&format!("admitted author {} without end", hex(&my_key))), "{said}");
    assert_eq!(fs::read(&me).unwrap(), before, "an author file is only read");

    let lists = load(format!("{folder}/swarm.qsl").as_ref()).unwrap();
    let now = now_ms();
    assert_eq!(lists.epochs(), (2, 2));
    let mut expected = [1, 2].map(|seed| NodeKey::of_peer(&peer(seed).to_bytes()));
    expected.sort_unstable();
    assert_eq!(lists.node_keys(now), expected);
    assert!(lists.admits_author(&my_key, now) && !lists.admits_author(&[7; 32], now));

    let said = json(&["admit", &folder, "--node", &peer(3).to_string(), "--days", "10"]);
    assert_eq!((&said["nodes_epoch"], &said["authors_epoch"]), (&3.into(), &2.into()));
    let until = |said: &Value| said["changes"][0]["until_ms"].as_u64().unwrap();
    let ten_days = until(&said);
    assert!((now + 10 * DAY_MS..=now_ms() + 10 * DAY_MS).contains(&ten_days));
    let said = json(&["admit", &folder, "--node", &peer(3).to_string(), "--until", "2999-12-31"]);
    assert_eq!(said["changes"][0]["change"], "extended");
    assert!(until(&said) > ten_days);
    let said = json(&["admit", &folder, "--node", &peer(3).to_string(), "--days", "1"]);
    assert_eq!((&said["changes"][0]["change"], &said["nodes_epoch"]), (&"unchanged".into(), &4.into()));

    done(&["revoke", &folder, "--node", &first, "--author", &author(1)]);
    let lists = load(folder.as_ref()).unwrap();
    assert_eq!(lists.epochs(), (5, 3));
    assert!(!lists.admits_node(&NodeKey::of_peer(&peer(1).to_bytes()), now_ms()));
    assert!(!lists.admits_author(AuthorKey::from_seed([1; 32]).public(), now_ms()));
    assert!(lists.admits_author(&my_key, now_ms()));

    let shown = done(&["show", &folder]);
    assert!(shown.contains("epoch 5") && shown.contains(&second) && !shown.contains(&first), "{shown}");
    assert!(shown.contains("2999-12-31") && shown.contains("2 listed, 2 admitted now"), "{shown}");
    let shown = json(&["show", &format!("{folder}/swarm.qsl")]);
    assert_eq!(shown["swarm"], hex(lists.swarm()));
    assert_eq!(shown["nodes"]["entries"].as_array().unwrap().len(), 2);
    assert_eq!(shown["authors"]["entries"][0]["key"], hex(&my_key));
}

#[test]
fn the_key_is_secret_and_the_lists_are_public() {
    let swarm = Swarm::new();
    let folder = swarm.folder();
    refused(&["create", &folder], 2, &["holds a swarm already", "name another folder"]);
    let lists = load(folder.as_ref()).unwrap();
    assert!(!lists.admits_author(&[1; 32], 0) && lists.node_keys(0).is_empty(), "nobody is admitted yet");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |name: &str| fs::metadata(format!("{folder}/{name}")).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("swarm.key"), mode("swarm.qsl") & 0o600), (0o600, 0o600));
        done(&["admit", &folder, "--author", &author(1)]);
        assert_eq!(mode("swarm.key"), 0o600);
        fs::set_permissions(format!("{folder}/swarm.key"), fs::Permissions::from_mode(0o644)).unwrap();
        refused(&["admit", &folder, "--author", &author(1)], 1, &["other users can read", "chmod 600"]);
        // Showing needs no key.
        done(&["show", &folder]);
    }
}

#[test]
fn an_open_swarm_closes_with_its_first_entry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("open").display().to_string();
    let said = done(&["create", &path, "--open-authors"]);
    assert!(said.contains("open to everybody"), "{said}");
    assert_eq!(json(&["show", &path])["authors"], Value::Null);
    assert!(load(path.as_ref()).unwrap().admits_author(&[1; 32], 0));
    done(&["admit", &path, "--author", &author(1)]);
    assert!(!load(path.as_ref()).unwrap().admits_author(&[1; 32], now_ms()));
}

#[test]
fn a_lost_list_leads_to_no_epoch_used_twice() {
    let swarm = Swarm::new();
    let folder = swarm.folder();
    let list = format!("{folder}/swarm.qsl");
    let old = fs::read(&list).unwrap();
    done(&["admit", &folder, "--author", &author(1), &author(2)]);
    done(&["revoke", &folder, "--author", &author(2)]);
    let newest = fs::read(&list).unwrap();

    fs::write(&list, &old).unwrap();
    let words = ["epoch 1 of the list of authors", "epoch 3 was signed", "lists.qsl"];
    refused(&["admit", &folder, "--author", &author(3)], 3, &words);
    fs::remove_file(&list).unwrap();
    refused(
        &["admit", &folder, "--author", &author(3)],
        1,
        &["swarm.qsl: is missing", "lists.qsl", "--new-lists"],
    );
    // As a node kept it.
    fs::write(&list, &newest).unwrap();
    assert_eq!(json(&["admit", &folder, "--author", &author(3)])["authors_epoch"], 4);
    refused(&["create", &folder, "--new-lists"], 2, &["holds a swarm already"]);
    fs::remove_file(&list).unwrap();
    let said = json(&["create", &folder, "--new-lists"]);
    assert_eq!((&said["nodes_epoch"], &said["authors_epoch"]), (&2.into(), &5.into()));
}

#[test]
fn wrong_arguments_and_files_are_named() {
    let swarm = Swarm::new();
    let folder = swarm.folder();
    let admit = |more: &[&str], code: i32, words: &[&str]| {
        refused(&[&["admit", &folder], more].concat(), code, words)
    };
    admit(&[], 2, &["--node", "--author"]);
    admit(&["--node", "12D3KooWnobody"], 2, &["12D3KooWnobody", "no peer id"]);
    admit(&["--author", "abc"], 2, &["--author abc", "64 hexadecimal digits", "author file"]);
    admit(&["--author", &"02".repeat(32)], 2, &["is no author key"]);
    admit(&["--author", &author(1), "--days", "0"], 2, &["--days"]);
    admit(&["--author", &author(1), "--days", "1", "--until", "2999-01-01"], 2, &["cannot be used with"]);
    admit(&["--author", &author(1), "--until", "soon"], 2, &["soon", "2030-12-31"]);
    admit(&["--author", &author(1), "--until", "2001-01-01"], 2, &["2001-01-01", "is over", "revoke"]);
    let damaged = swarm.path("damaged.json");
    fs::write(&damaged, "{").unwrap();
    admit(&["--author", &damaged], 3, &["author file", "restore it"]);
    // Somebody who is not listed: nobody is revoked.
    done(&["admit", &folder, "--author", &author(1)]);
    let unknown = peer(9).to_string();
    refused(&["revoke", &folder, "--author", &author(1), "--node", &unknown], 2, &["not listed", &unknown]);
    assert_eq!(json(&["show", &folder])["authors"]["entries"].as_array().unwrap().len(), 1);

    let empty = swarm.path("empty");
    fs::create_dir(&empty).unwrap();
    refused(&["admit", &empty, "--author", &author(1)], 1, &["holds no swarm.key", "qis swarm create"]);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    refused(&["show", &empty], 1, &["swarm.qsl"]);
    let list = format!("{folder}/swarm.qsl");
    let mut bytes = fs::read(&list).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&list, &bytes).unwrap();
    refused(&["show", &list], 3, &["swarm.qsl", "list of authors", "signature"]);
    fs::write(&list, "rows,of,a,table\n".repeat(9)).unwrap();
    refused(&["show", &folder], 3, &["is no file of signed lists"]);
}
