"""The Debian packages: built by one command, installed, used, removed and purged, in an overlay over
this system that goes with its mount namespace."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

from stack import free_port, main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = ("davitd", "davit-worker", "davit", "libdavit0", "libdavit-dev")

# Within the overlay, as root. Every line must succeed.
INSIDE = r"""
set -eu
cd /packages
fail() { echo "failed: $*"; exit 1; }
dpkg -i ./*.deb >/tmp/install.log 2>&1 || { cat /tmp/install.log; exit 1; }
for file in /usr/bin/davitd /usr/bin/davit-worker /usr/bin/davit /usr/libexec/davit/davit-shim \
    /usr/libexec/davit/davit-keep \
    /usr/share/davit/templates/C.gitlab-ci.yml /usr/include/davit.h /etc/davit/davitd.yml \
    /etc/davit/worker.env /lib/systemd/system/davitd.service /lib/systemd/system/davit-worker.service \
    /usr/share/doc/davitd/operating.md; do
    [ -e $file ] || fail "$file is not there"
done
for package in davitd davit-worker davit libdavit0 libdavit-dev; do
    dpkg --verify $package
    dpkg -s $package | grep -q '^Status: install ok installed' || fail "$package is not installed"
done
id davit >/dev/null; id davit-worker >/dev/null
[ "$(stat -c '%a %U' /var/lib/davit)" = "700 davit" ] || fail "the data folder is open"
davitd --check-config /etc/davit/davitd.yml
if command -v systemd-analyze >/dev/null; then
    systemd-analyze verify --man=no /lib/systemd/system/davitd.service /lib/systemd/system/davit-worker.service
fi

# A broker and a worker as their users, with the installed configuration.
run_as() { user=$1; shift; exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }
run_as davit davitd --config /etc/davit/davitd.yml --listen tcp://127.0.0.1:FLEET --http 127.0.0.1:HTTP \
    >/tmp/davitd.log 2>&1 &
broker=$!
for i in $(seq 200); do [ ! -e /var/lib/davit/endpoints.json ] || break; sleep 0.1; done
install -o davit-worker -m 600 /var/lib/davit/worker.token /tmp/worker.token
run_as davit-worker davit-worker --broker tcp://127.0.0.1:FLEET --token-file /tmp/worker.token \
    --state /var/lib/davit-worker --slots 2 >/tmp/worker.log 2>&1 &
worker=$!
davit enqueue --data /var/lib/davit --follow -- sh -c 'id -un; echo from a package' >/tmp/job.log 2>&1 ||
    { cat /tmp/job.log /tmp/davitd.log /tmp/worker.log; exit 1; }
grep -q davit-worker /tmp/job.log && grep -q 'from a package' /tmp/job.log || fail "$(cat /tmp/job.log)"
davit doctor --data /var/lib/davit || fail doctor
kill $worker; wait $worker || true
kill $broker; wait $broker || fail "the broker did not end well"

# A program of somebody else.
cc -o /tmp/example /usr/share/doc/libdavit-dev/examples/example.c $(pkg-config --cflags --libs davit)
ldd /tmp/example | grep -q 'libdavit.so.0 => /' || fail "libdavit is not found"

# What somebody wrote stays through an upgrade and a removal, and goes with a purge.
echo 'log_level: debug' >>/etc/davit/davitd.yml
dpkg -i ./davitd_*.deb >/dev/null 2>&1
grep -q 'log_level: debug' /etc/davit/davitd.yml || fail "the configuration was overwritten"
dpkg -r davitd davit-worker >/dev/null 2>&1
[ ! -e /usr/bin/davitd ] || fail "davitd is still there"
[ -e /etc/davit/davitd.yml ] && [ -d /var/lib/davit/store ] || fail "a removal took too much"
dpkg -P davitd davit-worker davit libdavit-dev libdavit0 >/dev/null 2>&1
for path in /etc/davit /var/lib/davit /var/lib/davit-worker /usr/share/davit /usr/libexec/davit; do
    [ ! -e $path ] || fail "$path is left: $(ls -A $path)"
done
! id davit >/dev/null 2>&1 || fail "the user is left"
"""

OUTSIDE = r"""
set -eu
mount -t tmpfs none WORK
mkdir WORK/upper WORK/work WORK/root
mount -t overlay overlay -o lowerdir=/,upperdir=WORK/upper,workdir=WORK/work WORK/root
mount -t proc proc WORK/root/proc
mount --bind /dev WORK/root/dev
mount -t tmpfs none WORK/root/tmp
mkdir -p WORK/root/packages
cp PACKAGES/*.deb WORK/root/packages/
exec chroot WORK/root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    sh -c "$INSIDE"
"""


def can_overlay():
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="davit-e2e-") as work:
        script = ("mount -t tmpfs none W && mkdir W/u W/w W/m && mount -t overlay overlay "
                  "-o lowerdir=/,upperdir=W/u,workdir=W/w W/m && chroot W/m /bin/true")
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script.replace("W", work)],
                              capture_output=True, check=False)
        return done.returncode == 0


def packages_install_work_and_go(build):
    out = os.path.join(os.path.abspath(build), "packages")
    for old in glob.glob(os.path.join(out, "*.deb")):
        os.remove(old)
    done = subprocess.run([os.path.join(ROOT, "deploy", "build-deb"), out], capture_output=True, text=True,
                          timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {os.path.basename(p).split("_")[0]: p for p in glob.glob(os.path.join(out, "*.deb"))}
    assert sorted(found) == sorted(NAMES), found
    for name, path in found.items():
        needs = subprocess.run(["dpkg-deb", "-f", path, "Depends"], capture_output=True, text=True,
                               check=True).stdout
        assert "@" not in needs and ", ," not in needs, (name, needs)
        assert "libc6" in needs or name == "libdavit-dev", (name, needs)
    assert "liblmdb0" in subprocess.run(["dpkg-deb", "-f", found["davitd"], "Depends"],
                                        capture_output=True, text=True, check=True).stdout
    if not can_overlay():
        print("skipped: installation, which needs root and overlayfs")
        return
    work = tempfile.mkdtemp(prefix="davit-e2e-")
    try:
        inside = INSIDE.replace("FLEET", str(free_port())).replace("HTTP", str(free_port()))
        outside = OUTSIDE.replace("WORK", work).replace("PACKAGES", out)
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", "--pid", "--fork",
                               "--kill-child", "sh", "-c", outside], capture_output=True, text=True,
                              timeout=300, check=False, env=dict(os.environ, INSIDE=inside))
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    if shutil.which("dpkg-shlibdeps") is None:
        print("skipped: no dpkg-dev here")
        sys.exit(77)
    main([packages_install_work_and_go])
