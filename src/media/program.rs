//! A program beside the gateway that is given sound and gives back bytes: named by the settings, with
//! fixed arguments, without a shell and without the gateway's environment, which holds secrets.

use bytes::Bytes;
use std::{ffi::OsStr, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
};

/// Why a program gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProgramError {
    /// It is not there, or may not be run.
    #[error("the program cannot be started")]
    NotStarted,
    /// It was ended.
    #[error("the program took too long")]
    TookTooLong,
    /// More than was asked for; it was ended.
    #[error("the program said too much")]
    TooMuch,
    /// It says that it failed.
    #[error("the program failed")]
    Failed,
}

/// What programs need to find themselves, their libraries and their models.
const ENVIRONMENT: [&str; 6] = ["PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR"];

/// Runs it: `input` to its standard input, and what it writes, `most` bytes at most. It is ended when
/// it takes longer than `within` or when nobody waits for it any more.
///
/// # Errors
/// [`ProgramError`].
pub(super) async fn run<A: AsRef<OsStr>>(
    program: &OsStr,
    arguments: &[A],
    input: Bytes,
    within: Duration,
    most: usize,
) -> Result<Vec<u8>, ProgramError> {
    let known = ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(known)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // What it complains about may quote what was said.
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| ProgramError::NotStarted)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        let give = async {
            if let Some(mut stdin) = stdin {
                // One that has heard enough closes its end.
                let _ = stdin.write_all(&input).await;
            }
        };
        let take = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                let all = stdout.take(most as u64 + 1).read_to_end(&mut said).await;
                all.map_err(|_| ProgramError::Failed)?;
            }
            if said.len() > most { Err(ProgramError::TooMuch) } else { Ok(said) }
        };
        // Too much ends it, whatever it is still given.
        let (said, ()) = tokio::try_join!(take, async {
            give.await;
            Ok(())
        })?;
        let ended = child.wait().await.map_err(|_| ProgramError::Failed)?;
        if ended.success() { Ok(said) } else { Err(ProgramError::Failed) }
    };
    let done = tokio::time::timeout(within, talk).await.unwrap_or(Err(ProgramError::TookTooLong));
    if done.is_err() {
        let _ = child.kill().await;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, input: &'static [u8]) -> Result<Vec<u8>, ProgramError> {
        let within = Duration::from_secs(20);
        run("sh".as_ref(), &["-c", script], Bytes::from_static(input), within, 1000).await
    }

    #[tokio::test]
    async fn a_program_is_heard_within_its_limits_and_knows_no_secrets() {
        assert_eq!(shell("cat", b"sound").await.as_deref(), Ok(&b"sound"[..]));
        assert_eq!(shell("exit 3", b"").await, Err(ProgramError::Failed));
        assert_eq!(shell("yes", b"").await, Err(ProgramError::TooMuch));
        // One that does not listen.
        let large = Bytes::from(vec![0; 1_000_000]);
        let within = Duration::from_secs(20);
        let deaf = run("sh".as_ref(), &["-c", "echo a"], large, within, 1000).await;
        assert_eq!(deaf.as_deref(), Ok(&b"a\n"[..]));
        let none = run("/nonexistent".as_ref(), &[""; 0], Bytes::new(), within, 1000).await;
        assert_eq!(none, Err(ProgramError::NotStarted));
        let short = Duration::from_millis(50);
        let slow = run("sleep".as_ref(), &["600"], Bytes::new(), short, 1000).await;
        assert_eq!(slow, Err(ProgramError::TookTooLong));
        // The gateway's own variables do not reach it: cargo's are there in any test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert_eq!(
            shell("echo ${CARGO_MANIFEST_DIR-none}", b"").await.as_deref(),
            Ok(&b"none\n"[..])
        );
    }
}
