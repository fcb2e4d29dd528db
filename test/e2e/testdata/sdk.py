"""What programs on Docker's Python SDK do with an engine: unittest finds the tests, DOCKER_HOST the engine."""

import io
import tarfile
import time
import unittest

import docker
from docker import errors, types

IMAGE = "busybox:latest"


class Case(unittest.TestCase):
    def setUp(self):
        self.client = docker.from_env(timeout=120)
        self.addCleanup(self.client.close)

    def container(self, *args, **kwargs):
        c = self.client.containers.create(IMAGE, *args, **kwargs)
        self.addCleanup(self.gone, c)
        return c

    def gone(self, c):
        try:
            c.remove(force=True, v=True)
        except errors.NotFound:
            pass


class Containers(Case):
    def test_run_returns_output(self):
        self.assertEqual(self.client.containers.run(IMAGE, "echo hello", remove=True), b"hello\n")

    def test_run_with_both_streams(self):
        out = self.client.containers.run(IMAGE, ["sh", "-c", "echo out; echo err >&2"], remove=True, stdout=True, stderr=True)
        self.assertEqual(sorted(out.splitlines()), [b"err", b"out"])

    def test_a_failure_carries_code_and_stderr(self):
        with self.assertRaises(errors.ContainerError) as caught:
            self.client.containers.run(IMAGE, ["sh", "-c", "echo wrong >&2; exit 3"], remove=True)
        self.assertEqual(caught.exception.exit_status, 3)
        self.assertEqual(caught.exception.stderr, b"wrong\n")

    def test_an_unknown_image(self):
        with self.assertRaises(errors.NotFound):
            self.client.api.create_container("no-such-image:none", "true")
        with self.assertRaises(errors.ImageNotFound):
            self.client.images.get("no-such-image:none")

    def test_life(self):
        c = self.container(["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"], name="sdk-life", labels={"sdk": "life"}, environment={"A": "b"})
        self.assertEqual(c.status, "created")
        c.start()
        c.reload()
        self.assertEqual(c.status, "running")
        self.assertIn(c.id, [x.id for x in self.client.containers.list(filters={"label": "sdk=life"})])
        self.assertEqual(self.client.containers.get("sdk-life").attrs["Config"]["Labels"]["sdk"], "life")
        self.assertIn("A=b", c.attrs["Config"]["Env"])
        c.rename("sdk-renamed")
        c.pause()
        c.reload()
        self.assertEqual(c.status, "paused")
        c.unpause()
        c.restart(timeout=5)
        c.stop(timeout=10)
        self.assertIn(c.wait()["StatusCode"], (7, 137))
        c.reload()
        self.assertEqual(c.status, "exited")
        c.start()
        c.kill()
        self.assertEqual(c.wait()["StatusCode"], 137)
        c.remove()
        with self.assertRaises(errors.NotFound):
            self.client.containers.get(c.id)

    def test_names_are_unique(self):
        self.container("true", name="sdk-unique")
        with self.assertRaises(errors.APIError) as caught:
            self.client.containers.create(IMAGE, "true", name="sdk-unique")
        self.assertEqual(caught.exception.status_code, 409)
        self.assertIn("already in use", caught.exception.explanation)

    def test_limits_and_options(self):
        c = self.container(
            ["sh", "-c", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; hostname; id -u; pwd; df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -n; cat /t/f"],
            mem_limit="64m", nano_cpus=500000000, pids_limit=50, hostname="sdk-host", user="1000", working_dir="/tmp", shm_size="8m",
            ulimits=[types.Ulimit(name="nofile", soft=100, hard=200)], cap_drop=["ALL"], read_only=True, tmpfs={"/t": "size=1m"},
            restart_policy={"Name": "no"}, init=True, extra_hosts={"other": "10.1.2.3"}, security_opt=["no-new-privileges"])
        c.start()
        c.wait()
        out = c.logs(stderr=False).decode().splitlines()
        self.assertEqual(out, ["67108864", "sdk-host", "1000", "/tmp", "8192", "100"])
        self.assertEqual(c.attrs["HostConfig"]["Memory"], 64 << 20)

    def test_ports(self):
        c = self.container(["httpd", "-f", "-p", "80"], ports={"80/tcp": ("127.0.0.1", None)})
        c.start()
        c.reload()
        bound = c.ports["80/tcp"][0]
        self.assertEqual(bound["HostIp"], "127.0.0.1")
        self.assertGreater(int(bound["HostPort"]), 0)

    def test_top_and_stats(self):
        c = self.container(["sleep", "600"])
        c.start()
        top = c.top()
        self.assertIn("sleep 600", [p[-1] for p in top["Processes"]])

    def test_prune_filters_are_understood(self):
        self.assertEqual(self.client.containers.list(all=True, filters={"name": "sdk-nobody", "status": "exited"}), [])


class Streams(Case):
    def test_logs_follow(self):
        c = self.container(["sh", "-c", "for i in 1 2 3; do echo line $i; done"])
        c.start()
        self.assertEqual(b"".join(c.logs(stream=True, follow=True)), b"line 1\nline 2\nline 3\n")
        self.assertEqual(c.logs(tail=1), b"line 3\n")
        self.assertRegex(c.logs(timestamps=True, tail=1).decode(), r"^\d{4}-\d\d-\d\dT[0-9:.]+Z line 3\n$")

    def test_attach_takes_stdin(self):
        c = self.container("cat", stdin_open=True)
        sock = c.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
        c.start()
        raw = getattr(sock, "_sock", sock)
        raw.sendall(b"through\n")
        raw.shutdown(1)
        self.assertEqual(c.wait()["StatusCode"], 0)
        self.assertEqual(c.logs(), b"through\n")
        sock.close()

    def test_attach_streams(self):
        c = self.container(["sh", "-c", "echo a; echo b >&2"])
        stream = c.attach(stdout=True, stderr=True, stream=True, demux=True, logs=False)
        c.start()
        out, err = b"", b""
        for o, e in stream:
            out, err = out + (o or b""), err + (e or b"")
        self.assertEqual((out, err), (b"a\n", b"b\n"))

    def test_terminal(self):
        c = self.container(["sh", "-c", "test -t 1 && echo tty"], tty=True)
        c.start()
        c.wait()
        self.assertEqual(c.logs(), b"tty\r\n")

    def test_exec(self):
        c = self.container(["sleep", "600"])
        c.start()
        self.assertEqual(c.exec_run("echo hi"), (0, b"hi\n"))
        self.assertEqual(c.exec_run(["sh", "-c", "echo o; echo e >&2; exit 4"], demux=True), (4, (b"o\n", b"e\n")))
        self.assertEqual(c.exec_run("id -u", user="1000").output, b"1000\n")
        self.assertEqual(c.exec_run("pwd", workdir="/tmp").output, b"/tmp\n")
        self.assertEqual(c.exec_run(["sh", "-c", "echo $X"], environment={"X": "y"}).output, b"y\n")
        self.assertEqual(c.exec_run("test -t 1", tty=True).exit_code, 0)
        self.assertEqual(b"".join(c.exec_run(["sh", "-c", "echo 1; echo 2"], stream=True).output), b"1\n2\n")
        # Output that comes at once must not come with the head of the answer, where the SDK loses it.
        for _ in range(100):
            self.assertEqual(c.exec_run("pwd").output, b"/\n")
        e = self.client.api.exec_create(c.id, "cat", stdin=True)
        sock = self.client.api.exec_start(e["Id"], socket=True)
        raw = getattr(sock, "_sock", sock)
        raw.sendall(b"in\n")
        raw.shutdown(1)
        self.assertIn(b"in\n", sock.read())
        sock.close()

    def test_events(self):
        # What has happened since is told as well, so it does not matter who is first.
        since, seen = int(time.time()), []
        stream = self.client.events(since=since, decode=True, filters={"type": "container", "label": "sdk=events"})
        c = self.container("true", labels={"sdk": "events"})
        c.start()
        c.wait()
        c.remove()
        for e in stream:
            seen.append(e["Action"])
            if e["Action"] == "destroy":
                stream.close()
                break
        self.assertEqual([a for a in seen if a in ("create", "start", "die", "destroy")], ["create", "start", "die", "destroy"])


class Images(Case):
    def test_get_list_tag_remove(self):
        image = self.client.images.get(IMAGE)
        self.assertIn(IMAGE, image.tags)
        self.assertTrue(image.tag("sdk-tag", "one"))
        image.reload()
        self.assertIn("sdk-tag:one", image.tags)
        self.assertEqual([i.id for i in self.client.images.list("sdk-tag")], [image.id])
        self.client.images.remove("sdk-tag:one")
        self.assertEqual(self.client.images.list("sdk-tag"), [])
        self.assertTrue(image.history())
        self.assertEqual(self.client.images.get(image.short_id).id, image.id)


class Volumes(Case):
    def test_life(self):
        v = self.client.volumes.create("sdk-volume", labels={"a": "b"})
        self.addCleanup(lambda: v.remove(force=True))
        self.assertEqual(self.client.volumes.get("sdk-volume").attrs["Labels"], {"a": "b"})
        self.assertIn("sdk-volume", [x.name for x in self.client.volumes.list(filters={"label": "a=b"})])
        run = self.client.containers.run
        run(IMAGE, ["sh", "-c", "echo kept > /v/f"], volumes={"sdk-volume": {"bind": "/v", "mode": "rw"}}, remove=True)
        self.assertEqual(run(IMAGE, "cat /v/f", volumes=["sdk-volume:/v:ro"], remove=True), b"kept\n")
        self.assertEqual(run(IMAGE, "cat /w/f", mounts=[types.Mount("/w", "sdk-volume", read_only=True)], remove=True), b"kept\n")
        user = self.container("true", volumes=["sdk-volume:/v"])
        with self.assertRaises(errors.APIError) as caught:
            v.remove()
        self.assertEqual(caught.exception.status_code, 409)
        user.remove()


class Files(Case):
    def test_archive_both_ways(self):
        c = self.container("true")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo("dir/file")
            member.size, member.mode, member.uid = 7, 0o640, 12
            tar.addfile(member, io.BytesIO(b"content"))
        self.assertTrue(c.put_archive("/tmp", packed.getvalue()))
        stream, stat = c.get_archive("/tmp/dir")
        self.assertEqual(stat["name"], "dir")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            got = tar.getmember("dir/file")
            self.assertEqual((got.mode, got.uid, tar.extractfile(got).read()), (0o640, 12, b"content"))
        with self.assertRaises(errors.NotFound):
            c.get_archive("/nothing")
        self.assertIn({"Path": "/tmp/dir/file", "Kind": 1}, c.diff())
        with tarfile.open(fileobj=io.BytesIO(b"".join(c.export()))) as tar:
            self.assertIn("tmp/dir/file", tar.getnames())

    def test_commit_save_load_import(self):
        c = self.container("true")
        image = c.commit("sdk/committed", tag="1", changes="ENV A=b", message="why", author="me")
        self.addCleanup(self.client.images.remove, "sdk/committed:1", force=True)
        self.assertEqual(image.tags, ["sdk/committed:1"])
        self.assertIn("A=b", image.attrs["Config"]["Env"])
        saved = b"".join(image.save(named=True))
        (loaded,) = self.client.images.load(saved)
        self.assertEqual(loaded.id, image.id)
        told = self.client.api.import_image_from_data(b"".join(c.export()), repository="sdk/imported")
        self.assertIn("sha256:", told)
        self.client.images.remove("sdk/imported")

    def test_build(self):
        files = io.BytesIO()
        with tarfile.open(fileobj=files, mode="w:gz") as tar:
            for name, text in {"Dockerfile": "FROM busybox\nARG WHO\nCOPY f /f\nRUN echo $WHO built it\n", "f": "content"}.items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        files.seek(0)
        image, log = self.client.images.build(
            fileobj=files, custom_context=True, encoding="gzip", tag="sdk/built:1", buildargs={"WHO": "me"}, labels={"l": "1"},
            rm=True, nocache=True, extra_hosts={"h": "1.2.3.4"}, container_limits={"memory": 64 << 20}, network_mode="default", pull=False)
        self.addCleanup(self.client.images.remove, "sdk/built:1", force=True)
        log = list(log)
        self.assertEqual(image.tags, ["sdk/built:1"])
        self.assertIn("me built it\n", [line.get("stream") for line in log])
        self.assertIn({"ID": image.id}, [line.get("aux") for line in log])
        self.assertEqual(self.client.containers.run(image, ["cat", "/f"], remove=True), b"content")

    def test_build_failures(self):
        with self.assertRaises(errors.BuildError) as caught:
            self.client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3\n"))
        self.assertEqual(caught.exception.msg, "The command '/bin/sh -c exit 3' returned a non-zero code: 3")
        with self.assertRaises(errors.APIError) as caught:
            self.client.images.build(fileobj=io.BytesIO(b"FRM busybox\n"))
        self.assertEqual(caught.exception.status_code, 400)
        self.assertIn("unknown instruction: FRM", caught.exception.explanation)

    def test_prune_and_df(self):
        c = self.container("true", labels=["sdk-prune"])
        done = self.client.containers.prune(filters={"label": "sdk-prune"})
        self.assertEqual(done["ContainersDeleted"], [c.id])
        self.assertEqual(self.client.images.prune(filters={"label": "sdk-nothing"})["ImagesDeleted"], [])
        df = self.client.df()
        self.assertGreater(df["LayersSize"], 0)
        self.assertIn("busybox:latest", [t for i in df["Images"] for t in i["RepoTags"]])
        with self.assertRaises(errors.APIError) as caught:
            self.client.login("u", "p", registry="127.0.0.1:1", reauth=True)
        self.assertEqual(caught.exception.status_code, 500)


class Networks(Case):
    def test_default_ones(self):
        names = {n.name for n in self.client.networks.list()}
        self.assertLessEqual({"bridge", "host", "none"}, names)
        self.assertEqual(self.client.networks.get("bridge").attrs["Driver"], "bridge")


class System(Case):
    def test_ping_version_info(self):
        self.assertTrue(self.client.ping())
        self.assertIn("ApiVersion", self.client.version())
        self.assertEqual(self.client.info()["OSType"], "linux")


if __name__ == "__main__":
    unittest.main(verbosity=2)
