//! Changes of users and rules that nobody waits for any more: what was written holds.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};

use access_rules::{Resource, Rule, Verb, Who};
use frontend::access::RulesError;
use frontend::identity::ChangeError;
use frontend::{Anonymous, Context, LoginError, Peer};
use kernel::ports::{Disk, DiskFile, MemoryColdStore};
use kernel::{Kernel, KernelConfig, Ports};
use parking_lot::Mutex;

/// Syncs wait for the lock.
struct HeldDisk {
    disk: Arc<dyn Disk>,
    gate: Arc<Mutex<()>>,
}

struct HeldFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Mutex<()>>,
}

impl HeldDisk {
    fn held(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let gate = self.gate.clone();
        Arc::new(HeldFile { file, gate })
    }
}

impl Disk for HeldDisk {
    fn create_dir(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.held(self.disk.create(path)?))
    }
    fn open(&self, path: &str, write: bool) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.held(self.disk.open(path, write)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn lock(&self, path: &str) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.disk.lock(path)
    }
}

impl DiskFile for HeldFile {
    fn write_at(&self, position: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.file.write_at(position, parts)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn read_at(&self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(position, buffer)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        let _open = self.gate.lock();
        self.file.sync()
    }
}

struct Core {
    ctx: Context,
    gate: Arc<Mutex<()>>,
}

impl Core {
    fn open(dir: &Path) -> Core {
        let gate = Arc::new(Mutex::new(()));
        let ports = Ports::system(dir, Arc::new(MemoryColdStore::default())).unwrap();
        let disk = HeldDisk {
            disk: ports.disk.clone(),
            gate: gate.clone(),
        };
        let ports = Ports {
            disk: Arc::new(disk),
            ..ports
        };
        let kernel = Kernel::open(ports, KernelConfig::default()).unwrap();
        let ctx = Context::with(kernel, dir, Anonymous::Deny, None).unwrap();
        Core { ctx, gate }
    }

    /// Who asked for it is gone while the disk has not answered.
    fn abandon(&self, change: impl Future) {
        let held = self.gate.lock();
        let first = pin!(change).poll(&mut TaskContext::from_waker(Waker::noop()));
        assert!(matches!(first, Poll::Pending));
        drop(held);
    }
}

fn here() -> Peer {
    Peer::at("127.0.0.1:40000".parse().unwrap())
}

#[tokio::test]
async fn a_user_whose_deletion_nobody_waits_for_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::open(dir.path());
    let identity = &core.ctx.identity;
    let nothing = BTreeSet::new;
    let added = identity.add_user("ann", "secret".into(), nothing(), 1);
    added.await.unwrap();
    let ann = identity.password("ann", b"secret", &here()).await.unwrap();

    let team = BTreeSet::from(["team".to_owned()]);
    core.abandon(identity.set_groups("ann", team, &nothing(), 2));
    // A change that comes after it, and finds nothing to do.
    let unknown = identity
        .set_groups("nobody", nothing(), &nothing(), 3)
        .await;
    assert!(matches!(unknown, Err(ChangeError::Unknown(_))));
    assert_eq!(identity.groups_of("ann").len(), 1);

    core.abandon(identity.delete_user("ann"));
    let unknown = identity.delete_user("ann").await;
    assert!(matches!(unknown, Err(ChangeError::Unknown(_))));
    ann.revoked().await;
    let again = identity.password("ann", b"secret", &here()).await;
    assert_eq!(again.unwrap_err(), LoginError::Wrong);
}

#[tokio::test]
async fn a_rule_that_nobody_waits_for_holds() {
    let dir = tempfile::tempdir().unwrap();
    let core = Core::open(dir.path());
    let (identity, access) = (&core.ctx.identity, &core.ctx.access);
    let added = identity.add_user("ann", "secret".into(), BTreeSet::new(), 1);
    added.await.unwrap();
    let ann = identity.password("ann", b"secret", &here()).await.unwrap();
    let may = || access.may(&ann.asker("c"), Verb::Publish, Resource::Topic("a"));
    assert!(may());
    let deny = Rule {
        allow: false,
        verbs: "all".parse().unwrap(),
        who: Who::default(),
        resource: "topic:#".parse().unwrap(),
    };
    core.abandon(access.add_rule(deny, None));
    let unknown = access.delete_rule(99).await;
    assert!(matches!(unknown, Err(RulesError::Unknown(99))));
    assert!(!may());
    core.abandon(access.delete_rule(1));
    let unknown = access.delete_rule(99).await;
    assert!(matches!(unknown, Err(RulesError::Unknown(99))));
    assert!(may());
}
