//! Bounded queue between the threads that log and standard error. A reader of standard error that has stopped
//! reading delays the writer thread only: lines beyond the bound are counted as lost, and the count is
//! written once the reader reads again.

use std::io::{self, ErrorKind, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Maximum number of bytes that wait to be written; some 8,000 lines.
const MAX_BYTES: usize = 1 << 20;

/// Pause before a write is tried again on a non-blocking descriptor that takes nothing.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    /// Lines that found no space since the last batch was taken.
    lost: u64,
    writing: bool,
}

/// The line about a number of lost lines.
type Notice = fn(u64) -> Vec<u8>;

/// Handle of the queue; copies share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQueue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl LogQueue {
    /// A queue with a thread that writes what is queued, and `notice` where lines were lost.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(out: impl Write + Send + 'static, notice: Notice) -> io::Result<Self> {
        let queue = Self::default();
        let writer = queue.clone();
        let write = move || writer.write_all_to(out, notice);
        thread::Builder::new().name("aquatic-log".to_owned()).spawn(write)?;
        Ok(queue)
    }

    /// Queues a line, or counts it as lost. Never waits for the reader.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > MAX_BYTES {
            state.lost += 1;
        } else {
            state.waiting.extend_from_slice(line);
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, at most for this long. Returns whether it is.
    pub(crate) fn flush(&self, at_most: Duration) -> bool {
        let unwritten = |state: &mut State| state.writing || !state.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.lock(), at_most, unwritten);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes batches for as long as the process runs.
    fn write_all_to(&self, mut out: impl Write, notice: Notice) -> ! {
        // Whether what was written last does not end with a line.
        let mut is_torn = false;
        loop {
            let idle = |state: &mut State| state.waiting.is_empty();
            let waited = self.0.changed.wait_while(self.lock(), idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let mut batch = std::mem::take(&mut state.waiting);
            let lost = std::mem::take(&mut state.lost);
            state.writing = true;
            drop(state);
            let was_torn = is_torn;
            if was_torn {
                batch.insert(0, b'\n');
            }
            if lost > 0 {
                batch.extend_from_slice(&notice(lost));
            }
            let unwritten = write_batch(&mut out, &batch);
            let written = batch.len() - unwritten.len();
            // Where nothing was written, the line before is as torn as it was.
            is_torn = batch.get(..written).and_then(<[u8]>::last).map_or(is_torn, |last| *last != b'\n');
            let has_lost_notice = lost > 0 && !unwritten.is_empty();
            let ends = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
            let others = u64::from(has_lost_notice) + u64::from(was_torn && written == 0);
            let mut state = self.lock();
            // Neither the notice nor the end of the torn line is one of them; what the notice told is untold.
            state.lost += ends.saturating_sub(others) + if has_lost_notice { lost } else { 0 };
            state.writing = false;
            drop(state);
            self.0.changed.notify_all();
        }
    }
}

/// Writes as much as can be, and returns what cannot: where the log goes there may be no room, for now.
fn write_batch<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return bytes,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(),
            Err(_) => return bytes,
        }
    }
    // Standard error has no buffer of its own.
    let _ = out.flush();
    bytes
}

#[allow(clippy::disallowed_methods, reason = "the writer thread of the log has nothing else to do")]
fn pause() {
    thread::sleep(RETRY_PAUSE);
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, Read, pipe};

    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    fn notice(lost: u64) -> Vec<u8> {
        format!("WARN  {lost} log lines were lost\n").into_bytes()
    }

    fn queue_into_pipe() -> (LogQueue, PipeReader) {
        let (reader, writer) = pipe().unwrap();
        (LogQueue::start(writer, notice).unwrap(), reader)
    }

    fn read_until(reader: &mut PipeReader, is_all: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        while !is_all(&text) {
            let mut bytes = [0; 65536];
            let length = reader.read(&mut bytes).unwrap();
            assert_ne!(length, 0, "the pipe ended after {} bytes", text.len());
            text.push_str(str::from_utf8(&bytes[..length]).unwrap());
        }
        text
    }

    #[test]
    fn lines_are_written_in_order_and_flushed() {
        let (queue, mut reader) = queue_into_pipe();
        queue.push(b"first\n");
        queue.push(b"second\n");
        assert!(queue.flush(LONG));
        assert_eq!(read_until(&mut reader, |text| text.ends_with("second\n")), "first\nsecond\n");
    }

    #[test]
    fn a_reader_that_stops_loses_lines_and_learns_how_many() {
        let (queue, mut reader) = queue_into_pipe();
        let line = [[b'x'; 99].as_slice(), b"\n"].concat();
        let total = 3 * MAX_BYTES / line.len();
        (0..total).for_each(|_| queue.push(&line));
        assert!(!queue.flush(Duration::from_millis(50)), "the pipe is full");
        // The reader may learn it in several parts, if this thread was held up between two lines.
        let lost_in = |line: &str| line.strip_prefix("WARN  ")?.split(' ').next()?.parse::<usize>().ok();
        let told = |text: &str| {
            let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines).lines();
            whole.map(|line| if line.starts_with('x') { 1 } else { lost_in(line).unwrap() }).sum::<usize>()
        };
        let text = read_until(&mut reader, |text| told(text) >= total);
        assert_eq!(told(&text), total);
        assert!(text.contains("log lines were lost"));
    }

    /// A device with room for some bytes, which another handle may make more of.
    #[derive(Clone, Default)]
    struct Device(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Device {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = bytes.len().min(*room - written.len());
            if taken == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_full_device_loses_is_told_once_there_is_room() {
        let device = Device::default();
        device.0.lock().unwrap().1 = 9;
        let queue = LogQueue::start(device.clone(), notice).unwrap();
        for line in [&b"first\n"[..], b"second\n", b"third\n"] {
            queue.push(line);
            assert!(queue.flush(LONG));
        }
        device.0.lock().unwrap().1 = 1000;
        queue.push(b"fourth\n");
        assert!(queue.flush(LONG));
        let text = String::from_utf8(device.0.lock().unwrap().0.clone()).unwrap();
        assert_eq!(text, "first\nsec\nfourth\nWARN  2 log lines were lost\n");
    }

    #[test]
    fn a_full_device_is_no_reason_to_wait() {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let queue = LogQueue::start(full, notice).unwrap();
        queue.push(b"nowhere to go\n");
        assert!(queue.flush(LONG));
    }
}
