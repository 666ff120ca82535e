//! Clock, disk, ports, store.

use super::Check;
use crate::store::{StoreError, read_format};
use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A store below this is about to stop accepting packets: two million packets of 512 bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// 2025-01-01 and 2100-01-01 in Unix seconds: outside, the clock was never set.
const SANE_SECONDS: std::ops::Range<u64> = 1_735_689_600..4_102_444_800;

/// Whether the wall clock shows a year that can be: observations are stamped with it.
pub(super) fn clock_year() -> Check {
    let name = "clock";
    let remedy = "sudo timedatectl set-ntp true";
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) if SANE_SECONDS.contains(&now.as_secs()) => {
            Check::passed(name, format!("year {}", year(now)))
        }
        Ok(now) => Check::failed(name, format!("the year {} cannot be right", year(now)), remedy),
        Err(_) => Check::failed(name, "shows a time before 1970", remedy),
    }
}

/// The year of a Unix time, by mean years: good enough for people.
fn year(since_1970: Duration) -> u64 {
    1970 + since_1970.as_secs() / 31_556_952
}

/// Whether clocks run forward and at the same rate.
pub(super) fn clock_monotonic() -> Check {
    let name = "clock rate";
    let remedy =
        "sudo systemctl restart systemd-timesyncd, or the time service of the virtual machine's host";
    let (monotonic, wall) = (Instant::now(), SystemTime::now());
    std::thread::sleep(Duration::from_millis(50));
    let elapsed = monotonic.elapsed();
    let Ok(wall) = wall.elapsed() else {
        return Check::failed(name, "the wall clock ran backward within 50 ms", remedy);
    };
    let apart = wall.abs_diff(elapsed);
    if elapsed < Duration::from_millis(50) {
        Check::failed(name, format!("a sleep of 50 ms took {elapsed:?}"), remedy)
    } else if apart > Duration::from_millis(20) {
        Check::noted(
            name,
            format!("wall and monotonic clock moved {apart:?} apart within {elapsed:?}"),
            remedy,
        )
    } else {
        Check::passed(name, format!("wall and monotonic clock agree within {apart:?}"))
    }
}

/// Whether the disk of the store has room.
pub(super) fn free_space(store: &Path) -> Check {
    let name = "disk space";
    match fs4::available_space(existing(store)) {
        Ok(bytes) if bytes >= FREE_BYTES_MIN => {
            Check::passed(name, format!("{} MiB free at {}", bytes >> 20, store.display()))
        }
        Ok(bytes) => Check::failed(
            name,
            format!(
                "{} MiB free at {}, fewer than {} MiB",
                bytes >> 20,
                store.display(),
                FREE_BYTES_MIN >> 20
            ),
            "free space on that disk, or choose another with --store",
        ),
        Err(error) => {
            Check::failed(name, format!("{}: {error}", store.display()), "choose a path with --store")
        }
    }
}

/// Whether QUIC can have a UDP port, and a datagram comes through.
pub(super) fn udp_port() -> Check {
    let name = "UDP port";
    match echo() {
        Ok(port) => Check::passed(name, format!("bound 127.0.0.1:{port}, a datagram came back")),
        Err(error) => Check::failed(
            name,
            format!("127.0.0.1: {error}"),
            "sudo ip link set lo up, and allow UDP on the loopback in the firewall",
        ),
    }
}

fn echo() -> std::io::Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send_to(b"qis", address)?;
    let mut bytes = [0; 3];
    socket.recv_from(&mut bytes)?;
    Ok(address.port())
}

/// Whether packets can be kept at `path`: it can be written, and if a store is there, this build
/// knows its format.
pub fn store_check(path: &Path) -> Check {
    let name = "store";
    let shown = path.display();
    match read_format(path) {
        Ok(_) => {}
        Err(error @ StoreError::Version { .. }) => {
            let remedy = "use the qis release that wrote the store, or another --store";
            return Check::failed(name, error.to_string(), remedy);
        }
        Err(error @ StoreError::Format { .. }) => {
            let remedy = format!("restore {shown} from a copy, or move it away to start empty");
            return Check::failed(name, error.to_string(), remedy);
        }
        Err(error) => {
            return Check::failed(name, error.to_string(), format!("sudo chown -R \"$(id -u)\" {shown}"));
        }
    }
    let here = existing(path);
    match write_and_remove(here) {
        Ok(()) if path.exists() => Check::passed(name, format!("{shown} can be written")),
        Ok(()) => {
            Check::passed(name, format!("{shown} is not there yet and can be made in {}", here.display()))
        }
        Err(error) => Check::failed(
            name,
            format!("{} cannot be written: {error}", here.display()),
            format!("sudo chown \"$(id -u)\" {}, or choose another path with --store", here.display()),
        ),
    }
}

fn write_and_remove(folder: &Path) -> std::io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".qis-doctor-").tempfile_in(folder)?;
    file.write_all(b"qis")?;
    file.as_file().sync_all()
}

/// The path itself, or the nearest folder above it that is there.
fn existing(path: &Path) -> &Path {
    let above = path.ancestors().find(|folder| !folder.as_os_str().is_empty() && folder.exists());
    above.unwrap_or(Path::new("."))
}
