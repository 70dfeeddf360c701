//! Commands of our own on DPDK's telemetry socket, which `dpdk-telemetry.py` asks. Owns the list of them. DPDK asks on
//! threads of its own, one for each client; nothing unwinds into it, and no answer is longer than it has room for.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Arc, PoisonError, RwLock};

use dpdk_sys as sys;

use crate::eal::Handle;
use crate::error::{self, Error};

/// What a command answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    /// At most 127 bytes of it are sent.
    Text(String),
    /// At most [`ARRAY_MAX`] of them are sent.
    Numbers(Vec<u64>),
    /// Names and values, in order; at most [`DICT_MAX`] of them are sent. In a name everything but ASCII letters, digits
    /// and `/` becomes `_`.
    Dict(Vec<(String, Self)>),
}

/// Numbers that an array holds.
pub const ARRAY_MAX: usize = sys::RTE_TEL_MAX_ARRAY_ENTRIES as usize;

/// Values that a dictionary holds.
pub const DICT_MAX: usize = sys::RTE_TEL_MAX_DICT_ENTRIES as usize;

/// Bytes of a text, with its final zero.
const TEXT_MAX: usize = sys::RTE_TEL_MAX_STRING_LEN as usize;

/// Gives the answer to the words behind the command's comma; `None`, which is sent as null, if there is none to them.
pub type Answer = Box<dyn Fn(&str) -> Option<Value> + Send + Sync>;

/// A command as it is to be registered.
pub struct Command {
    /// Such as `/conntrack/stats`; at most 55 bytes.
    pub name: &'static str,
    /// One sentence for `/help,COMMAND`.
    pub help: &'static str,
    pub answer: Answer,
}

/// `None` for a command that was registered and is not answered any more: DPDK has no way to take one back.
static COMMANDS: RwLock<BTreeMap<&'static str, Option<Arc<Answer>>>> = RwLock::new(BTreeMap::new());

/// Registered commands; they answer null once this is dropped.
#[derive(Debug)]
pub struct Commands {
    names: Vec<&'static str>,
    _eal: Handle,
}

impl Commands {
    /// Has DPDK ask for `commands` from now on. A command that is registered again answers by what came last.
    pub fn register(eal: &Handle, commands: Vec<Command>) -> Result<Self, Error> {
        let mut registered = Self { names: Vec::new(), _eal: eal.clone() };
        for Command { name, help, answer } in commands {
            let known = put(name, Some(Arc::new(answer)));
            registered.names.push(name);
            if known {
                continue;
            }
            let (word, sentence) = (error::c_string(name)?, error::c_string(help)?);
            // SAFETY: both are NUL-terminated and copied; the function has the type declared and lives for ever.
            let code = unsafe {
                sys::rte_telemetry_register_cmd(word.as_ptr(), Some(on_command), sentence.as_ptr())
            };
            if code != 0 {
                return Err(Error::Telemetry { command: name, why: error::words(code) });
            }
        }
        Ok(registered)
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        for name in &self.names {
            put(name, None);
        }
    }
}

/// Gives whether DPDK knows the command.
fn put(name: &'static str, answer: Option<Arc<Answer>>) -> bool {
    COMMANDS.write().unwrap_or_else(PoisonError::into_inner).insert(name, answer).is_some()
}

unsafe extern "C" fn on_command(
    command: *const c_char,
    words: *const c_char,
    data: *mut sys::rte_tel_data,
) -> c_int {
    const EINVAL: c_int = 22;
    let Some(data) = NonNull::new(data) else { return -EINVAL };
    // SAFETY: DPDK gives NUL-terminated texts that stay for this call, or null where there are no words.
    let (command, words) = unsafe { (text(command), text(words)) };
    let answer = catch_unwind(AssertUnwindSafe(|| {
        let commands = COMMANDS.read().unwrap_or_else(PoisonError::into_inner);
        let answer = commands.get(command.as_str())?.clone()?;
        // An answer may take its time; others are registered meanwhile.
        drop(commands);
        answer(&words)
    }));
    let Ok(Some(value)) = answer else { return -EINVAL };
    // SAFETY: DPDK gave `data` for this call's answer, and nothing has been written to it.
    unsafe { write(data, &value) }
}

/// # Safety
/// `text` is null or a NUL-terminated text.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as for this function.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Writes a whole answer; gives 0, or an errno below it.
///
/// # Safety
/// `data` is an answer, or a part of one, that nothing has been written to.
unsafe fn write(data: NonNull<sys::rte_tel_data>, value: &Value) -> c_int {
    let to = data.as_ptr();
    // SAFETY: as for this function; texts are NUL-terminated and copied. A part belongs to the whole once it is in it.
    unsafe {
        match value {
            Value::Number(number) => write(data, &Value::Numbers(vec![*number])),
            Value::Text(text) => sys::rte_tel_data_string(to, cut(text).as_ptr()),
            Value::Numbers(numbers) => {
                let mut code = sys::dpdk_tel_start_numbers(to);
                for &number in numbers.iter().take(ARRAY_MAX) {
                    code = code.min(sys::dpdk_tel_add_number(to, number));
                }
                code
            }
            Value::Dict(pairs) => {
                let mut code = sys::rte_tel_data_start_dict(to);
                for (name, value) in pairs.iter().take(DICT_MAX) {
                    let name = cut(&plain(name));
                    code = code.min(match value {
                        Value::Number(number) => sys::dpdk_tel_put_number(to, name.as_ptr(), *number),
                        Value::Text(text) => {
                            sys::rte_tel_data_add_dict_string(to, name.as_ptr(), cut(text).as_ptr())
                        }
                        Value::Numbers(_) | Value::Dict(_) => put_part(to, &name, value),
                    });
                }
                code
            }
        }
    }
}

/// # Safety
/// `to` is a dictionary.
unsafe fn put_part(to: *mut sys::rte_tel_data, name: &CStr, value: &Value) -> c_int {
    const ENOMEM: c_int = 12;
    // SAFETY: alloc gives an empty part, which is ours until it is in the whole; with 0 DPDK frees it after sending.
    unsafe {
        let Some(part) = NonNull::new(sys::rte_tel_data_alloc()) else { return -ENOMEM };
        let written = write(part, value);
        let code = sys::rte_tel_data_add_dict_container(to, name.as_ptr(), part.as_ptr(), 0);
        if code != 0 {
            sys::rte_tel_data_free(part.as_ptr());
        }
        code.min(written)
    }
}

/// As DPDK takes a name: it refuses others.
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '/' { c } else { '_' }).collect()
}

/// As long as DPDK takes a text, and without a zero in it.
fn cut(text: &str) -> CString {
    let room = TEXT_MAX - 1;
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|&end| end <= room).last();
    CString::new(text[..end.unwrap_or(0)].replace('\0', " ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_as_dpdk_takes_them() {
        assert_eq!(plain("tcp.syn-sent/Ü"), "tcp_syn_sent/_");
        assert_eq!(cut("a\0b").as_bytes(), b"a b");
        let long = "ü".repeat(100);
        assert_eq!(cut(&long).as_bytes().len(), TEXT_MAX - 2, "a letter is whole or not there");
    }
}
