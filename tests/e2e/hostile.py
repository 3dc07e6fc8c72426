"""People who want the API down, or to look like somebody else: floods, slow ones, two-faced requests."""
import concurrent.futures
import os
import resource
import shutil
import socket
import time
import urllib.error
import urllib.request

from stack import Child, Stack, free_port, main, wait_for


def connect(stack):
    s = socket.create_connection(("127.0.0.1", stack.http_port), timeout=20)
    s.settimeout(20)
    return s


def answer(stack, raw):
    """All that comes back for these bytes, until the server closes or rests."""
    with connect(stack) as s:
        s.sendall(raw)
        got = b""
        s.settimeout(3)
        try:
            while part := s.recv(65536):
                got += part
        except (socket.timeout, ConnectionResetError):
            pass
        return got


def is_served(stack):
    start = time.monotonic()
    stack.get("/version", timeout=10)
    return time.monotonic() - start


def requests_that_two_servers_read_in_two_ways_end_the_connection(build):
    with Stack(build, workers=0) as stack:
        token = stack.token().encode()
        head = b"Host: x\r\nAuthorization: Bearer " + token + b"\r\n"
        hidden = b"GET /api/v1/version HTTP/1.1\r\n" + head + b"\r\n"
        for name, raw in {
            "both lengths": b"POST /api/v1/lint HTTP/1.1\r\n" + head +
                            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
            "two lengths": b"POST /api/v1/lint HTTP/1.1\r\n" + head +
                           b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + hidden,
            "two tokens": b"GET /api/v1/version HTTP/1.1\r\n" + head + b"Authorization: Bearer x\r\n\r\n" + hidden,
            "two hosts": b"GET /api/v1/version HTTP/1.1\r\n" + head + b"Host: y\r\n\r\n" + hidden,
            "a blank before the colon": b"GET /api/v1/version HTTP/1.1\r\n" + head + b"Content-Length : 5\r\n\r\n" + hidden,
            "a way up": b"GET /api/v1/../../metrics HTTP/1.1\r\n" + head + b"\r\n" + hidden,
            "an escaped way up": b"GET /pages/%2e%2e/x HTTP/1.1\r\n" + head + b"\r\n" + hidden,
            "a NUL": b"GET /api/v1/version%00 HTTP/1.1\r\n" + head + b"\r\n" + hidden,
            "an odd encoding": b"POST /api/v1/lint HTTP/1.1\r\n" + head +
                               b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
        }.items():
            got = answer(stack, raw)
            assert b'"version"' not in got, (name, got)
            assert got == b"" or got.startswith(b"HTTP/1.1 4"), (name, got)
        is_served(stack)


def strangers_are_told_to_wait_and_others_are_not(build):
    with Stack(build, workers=0) as stack:
        def stranger(_):
            req = urllib.request.Request(stack.url + "/api/v1/version")
            req.add_header("Authorization", "Bearer wrong")
            try:
                urllib.request.urlopen(req, timeout=20)
            except urllib.error.HTTPError as e:
                return e.code, e.headers.get("Retry-After")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(stranger, range(300)))
        codes = [code for code, _ in answers]
        assert set(codes) == {401, 429}, set(codes)
        assert 100 <= codes.count(401) < 200, codes.count(401)
        assert all(int(after) >= 1 for code, after in answers if code == 429)
        is_served(stack)  # whoever has a token does not wait, from that address either
        assert wait_for("a stranger may ask again", lambda: stranger(0)[0] == 401)


def a_token_has_its_rate(build):
    with Stack(build, workers=0, davitd=["--rate-limit", "5"]) as stack:
        made = stack.post("/tokens", {"name": "eager", "role": "reporter"})["token"]

        def ask(token):
            req = urllib.request.Request(stack.url + "/api/v1/version")
            req.add_header("Authorization", "Bearer " + token)
            try:
                with urllib.request.urlopen(req, timeout=20) as got:
                    return got.status
            except urllib.error.HTTPError as e:
                assert e.code == 429 and int(e.headers["Retry-After"]) >= 1, e
                return e.code
        codes = [ask(made) for _ in range(60)]
        assert codes[:25] == [200] * 25 and 429 in codes, codes
        assert [ask(stack.token()) for _ in range(60)] == [200] * 60
        wait_for("the bucket fills", lambda: ask(made) == 200)


def ten_thousand_idle_connections_keep_nobody_out(build):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10000, hard - 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted + 100, hard))
    held = []
    try:
        with Stack(build, workers=0) as stack:
            worst = 0.0
            for i in range(wanted):
                s = socket.socket()
                s.setblocking(False)
                s.connect_ex(("127.0.0.1", stack.http_port))
                held.append(s)
                if i % 500 == 499:
                    worst = max(worst, is_served(stack))
            print(f"     {wanted} connections opened, a request took {worst * 1000:.0f} ms at worst")
            assert worst < 8, worst
    finally:
        for s in held:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def slow_heads_are_cut_off(build):
    with Stack(build, workers=0) as stack:
        start = time.monotonic()
        with connect(stack) as s:
            try:
                for byte in b"GET /api/v1/version HTTP/1.1\r\nHost: " + b"x" * 100:
                    s.sendall(bytes([byte]))
                    time.sleep(0.5)
                    s.settimeout(0.01)
                    try:
                        if s.recv(100) == b"":
                            break
                    except socket.timeout:
                        pass
                    s.settimeout(20)
                else:
                    raise AssertionError("a head of 60 s was waited for")
            except OSError:
                pass
        assert time.monotonic() - start < 25
        is_served(stack)


NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 200; }}
http {{
  access_log off; client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{api}; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering off; proxy_request_buffering off; client_max_body_size 4g; proxy_read_timeout 60s;
    }}
  }}
}}
"""


def a_proxy_names_who_asks_and_hides_nothing(build):
    nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    if nginx is None:
        print("     skipped: no nginx")
        return
    with Stack(build, davitd=["--trusted-proxies", "127.0.0.1"]) as stack:
        port = free_port()
        conf = os.path.join(stack.dir, "nginx.conf")
        with open(conf, "w", encoding="ascii") as f:
            f.write(NGINX.format(dir=stack.dir, port=port, api=stack.http_port))
        proxy = Child("nginx", [nginx, "-c", conf, "-p", stack.dir], os.path.join(stack.dir, "nginx.out"))
        proxy.start()
        direct, behind = stack.url, f"http://127.0.0.1:{port}"
        try:
            def up():
                try:
                    with urllib.request.urlopen(behind + "/readyz", timeout=5) as got:
                        return got.status == 200
                except OSError:
                    return False
            wait_for("nginx serves", up)
            stack.url = behind
            for claimed, written in {"203.0.113.9": "127.0.0.1", "nonsense": "127.0.0.1"}.items():
                # What a client claims stands before what nginx adds, and counts for nothing.
                stack.request("PUT", "/api/v1/pools/fast", {}, headers={"X-Forwarded-For": claimed})
                assert stack.get("/audit")["items"][0]["from"] == written
            stack.url = direct
            stack.request("PUT", "/api/v1/pools/fast", {}, headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
            assert stack.get("/audit")["items"][0]["from"] == "203.0.113.9", "the proxy's own word is believed"
            stack.url = behind
            p = stack.submit("a: {script: ['for i in 1 2 3 4; do echo tick $i; sleep 1; done']}")
            stack.wait_job(p["id"], "a", "running")
            req = urllib.request.Request(f"{behind}/api/v1/jobs/{p['jobs'][0]['id']}/log/follow")
            req.add_header("Authorization", "Bearer " + stack.token())
            times = []
            with urllib.request.urlopen(req, timeout=30) as stream:
                for line in stream:
                    if line.startswith(b"event: log"):
                        times.append(time.monotonic())
                    if line.startswith(b"event: end"):
                        break
            assert len(times) >= 3 and times[-1] - times[0] > 1.5, times
            big = os.urandom(1 << 20) * 96
            answer = stack.request("POST", "/api/v1/blobs", big, headers={"Content-Type": "application/octet-stream"},
                                   timeout=120)
            assert answer["size"] == len(big)
            assert stack.request("GET", f"/api/v1/blobs/{answer['digest']}", raw=True, timeout=120) == big
        finally:
            stack.url = direct
            proxy.stop()
    with Stack(build, workers=0) as stack:
        stack.request("PUT", "/api/v1/pools/fast", {}, headers={"X-Forwarded-For": "203.0.113.9"})
        assert stack.get("/audit")["items"][0]["from"] == "127.0.0.1", "nobody was trusted"


if __name__ == "__main__":
    main([requests_that_two_servers_read_in_two_ways_end_the_connection,
          strangers_are_told_to_wait_and_others_are_not, a_token_has_its_rate,
          ten_thousand_idle_connections_keep_nobody_out, slow_heads_are_cut_off,
          a_proxy_names_who_asks_and_hides_nothing])
