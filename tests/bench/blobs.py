"""Bytes to the broker beside nginx: what curl sends to either, a whole job with artifacts, a log."""
import os
import shutil
import subprocess
import time

from stack import Child, Stack, free_port, wait_for

CONF = """
daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{
    listen 127.0.0.1:{port};
    location / {{ root {dir}/put; dav_methods PUT; create_full_put_path on; client_max_body_size 4g; }}
  }}
}}
"""


LOG_MB = 48.49  # of 36,000,000 bytes in base64, 98 characters a line


def curl(*args):
    """MB/s of one upload, as curl has it."""
    done = subprocess.run(["curl", "-sS", "-f", "-o", "/dev/null", "-w", "%{speed_upload}", *args],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    return float(done.stdout) / 1e6


def start_nginx(folder):
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if program is None:
        return None, 0
    port = free_port()
    os.makedirs(os.path.join(folder, "put"))
    os.chmod(os.path.join(folder, "put"), 0o777)
    conf = os.path.join(folder, "nginx.conf")
    with open(conf, "w", encoding="ascii") as f:
        f.write(CONF.format(dir=folder, port=port))
    child = Child("nginx", [program, "-c", conf, "-p", folder], os.path.join(folder, "nginx.out"))
    child.start()

    def serves():
        return subprocess.run(["curl", "-s", "-o", "/dev/null", f"http://127.0.0.1:{port}/"],
                              check=False, timeout=10).returncode == 0
    wait_for("nginx serves", serves)
    return child, port


def job_seconds(stack, text):
    start = time.monotonic()
    pipeline = stack.wait_pipeline(stack.submit(text, project="bench")["id"], timeout_s=300)
    assert pipeline["status"] == "success", pipeline
    return time.monotonic() - start


def blobs(bench):
    """Uploads by curl to Davit and to nginx, artifacts and logs of jobs; MB are 10^6 bytes."""
    size = 64_000_000 if bench.quick else 256_000_000
    davit, plain, artifacts, logs = [], [], [], []
    with Stack(bench.build, workers=1, heartbeat_ms=3000, lease_ms=10000) as stack:
        folder = os.path.join(stack.dir, "nginx")
        os.makedirs(folder)
        os.chmod(stack.dir, 0o755)
        source = os.path.join(stack.dir, "bytes")
        with open(source, "wb") as f:
            for _ in range(size // 1_000_000):
                f.write(os.urandom(1_000_000))
        nginx, port = start_nginx(folder)
        token = "Authorization: Bearer " + stack.token()
        script = f"a: {{script: ['cp {source} big']%s}}\n"
        lines = "b: {script: ['head -c 36000000 /dev/urandom | base64 -w 98']}\n"
        try:
            for i in range(bench.rounds + 1):  # the first round warms up
                os.sync()
                sent = curl("-X", "POST", "-H", token, "-H", "Expect:", "-T", source,
                            stack.url + "/api/v1/blobs")
                put = curl("-H", "Expect:", "-T", source, f"http://127.0.0.1:{port}/{i}") if nginx else 0
                bare = job_seconds(stack, script % "")
                whole = job_seconds(stack, script % ", artifacts: {paths: [big]}")
                spent = job_seconds(stack, lines)
                if i > 0:
                    davit.append(sent)
                    plain.append(put)
                    artifacts.append(size / 1e6 / max(whole - bare, 1e-3))
                    logs.append(LOG_MB / spent)
        finally:
            if nginx:
                nginx.stop()
    bench.row("upload, curl to Davit", "MB/s", davit, "hashed, on disk before the answer")
    if nginx:
        bench.row("upload, curl -T to nginx", "MB/s", plain, "not flushed")
    bench.row("artifacts of a job: packed, sent, stored", "MB/s", artifacts, "on disk before the job ends")
    bench.row("log of a job of 48 MB, from submit to end", "MB/s", logs, "every byte on disk")
