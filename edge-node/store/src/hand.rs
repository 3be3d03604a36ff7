//! Who does the work of the store's threads: they themselves, or, in the crash simulator, whoever calls [`crate::Store::step`], so that
//! a seed is one run.

use std::io;
use std::thread::JoinHandle;

/// Which of the two, for a whole store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hands {
    Threads,
    Stepped,
}

/// One of them.
pub(crate) enum Hand<W> {
    Thread(JoinHandle<()>),
    Caller(Box<W>),
    /// It has ended.
    Nobody,
}

impl Hands {
    pub fn start<W: Send + 'static>(
        self,
        name: String,
        worker: W,
        run: impl FnOnce(W) + Send + 'static,
    ) -> io::Result<Hand<W>> {
        Ok(match self {
            Hands::Threads => {
                let thread = std::thread::Builder::new().name(name);
                Hand::Thread(thread.spawn(move || run(worker))?)
            }
            Hands::Stepped => Hand::Caller(Box::new(worker)),
        })
    }
}

impl<W> Hand<W> {
    /// Waits for a thread, which was told to end.
    pub fn end(&mut self) {
        if let Hand::Thread(thread) = std::mem::replace(self, Hand::Nobody) {
            // One that panicked has already failed everybody who waited for it.
            let _ = thread.join();
        }
    }
}
