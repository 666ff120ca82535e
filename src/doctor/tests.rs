use super::*;

#[test]
fn a_healthy_folder_passes() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().to_owned(), folder.path().join("not/yet")] {
        let check = store_check(&path);
        assert_eq!(check.status, Status::Passed, "{check:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the check leaves nothing behind");
    let store = folder.path().join("store");
    drop(crate::store::DiskStore::open(&store).unwrap());
    assert_eq!(store_check(&store).status, Status::Passed);
}

#[test]
fn a_store_of_another_format_fails_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    drop(crate::store::DiskStore::open(folder.path()).unwrap());
    let good = std::fs::read(folder.path().join("FORMAT")).unwrap();
    let newer = [&good[..4], &[255, 0, 0, 0], &good[8..]].concat();
    for content in [&newer[..], b"", b"\xff\xfe\x00"] {
        std::fs::write(folder.path().join("FORMAT"), content).unwrap();
        let check = store_check(folder.path());
        assert_eq!(check.status, Status::Failed, "{check:?}");
        assert!(!check.remedy.is_empty());
    }
}

#[test]
fn a_file_in_the_way_fails() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert_eq!(store_check(file.path()).status, Status::Failed);
}

#[test]
fn the_machine_of_the_tests_is_healthy_and_a_missing_adapter_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let report = examine(None, folder.path());
    let failed: Vec<&Check> = report.checks.iter().filter(|check| check.status == Status::Failed).collect();
    // The disk of a build machine may be nearly full: that is a true failure, but none of the code.
    assert!(failed.iter().all(|check| check.name == "disk space"), "{failed:?}");

    let report = examine(Some("no such adapter"), folder.path());
    assert!(!report.healthy());
    let gpu = report.checks.iter().find(|check| check.name.ends_with("GPU")).unwrap();
    assert!(gpu.status == Status::Failed && !gpu.remedy.is_empty(), "{gpu:?}");
}
