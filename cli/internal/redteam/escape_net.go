package redteam

var sockets = []Attack{
	inBoth("sockets of every family", "opens a socket of every family, type and protocol that the kernel has",
		"none opens", `
def attack():
    import socket
    for family in range(1, 47):
        for kind in (1, 2, 3, 4, 5, 6, 10):
            try: s = socket.socket(family, kind, 0)
            except OSError:
                tried.append("%d/%d" % (family, kind))
                continue
            saw("family %d type %d" % (family, kind), True, repr(s))
            s.close()
    for protocol in (1, 6, 17, 58, 132, 136, 255, 262):
        for family in (2, 10):
            for kind in (1, 2, 3, 5):
                attempt("protocol %d of %d, type %d" % (protocol, family, kind), lambda: socket.socket(family, kind, protocol).close())
`).stoppedBy(Seccomp).tame().marked(markBlocked),

	inBoth("connections to the host", "connects to TCP listeners of IPv4 and IPv6, to the gateway, the monitor port and NATS",
		"no connection comes about", `
def attack():
    import socket, urllib.request
    for name in ("tcp4", "api", "monitor", "nats"):
        for address in ("127.0.0.1", "0.0.0.0", "localhost"):
            attempt("%s at %s" % (name, address), lambda: socket.create_connection((address, FACTS[name]), 2).close())
    attempt("tcp6", lambda: socket.create_connection(("::1", FACTS["tcp6"]), 2).close())
    attempt("mptcp", lambda: socket.socket(2, 1, 262).connect(("127.0.0.1", FACTS["tcp4"])))
    attempt("http", lambda: urllib.request.urlopen("http://127.0.0.1:%d/workers" % FACTS["api"], timeout=2).read())
    attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
`).tame(),

	inBoth("datagrams to the host", "sends datagrams by UDP, to multicast and to a name server",
		"none arrives", `
def attack():
    import socket
    attempt("udp", lambda: socket.socket(2, 2).sendto(b"x", ("127.0.0.1", FACTS["udp4"])))
    attempt("udp6", lambda: socket.socket(10, 2).sendto(b"x", ("::ffff:127.0.0.1", FACTS["udp4"])))
    attempt("udplite", lambda: socket.socket(2, 2, 136).sendto(b"x", ("127.0.0.1", FACTS["udp4"])))
    attempt("raw", lambda: socket.socket(2, 3, 1).sendto(b"\x08" + bytes(7), ("127.0.0.1", 0)))
`).stoppedBy(Seccomp, Namespaces).tame(),

	inBoth("unix sockets of the host", "connects to sockets of the host by path and by abstract name, and to those that hosts have",
		"no connection comes about", `
def attack():
    import socket, glob
    for path in [FACTS["unix"], "\0" + FACTS["abstract"], "/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket",
                 "/run/systemd/private", "/run/systemd/journal/socket", "/tmp/.X11-unix/X0", "/dev/log"] + glob.glob("/run/user/*/bus") + glob.glob("/tmp/ssh-*/agent*"):
        for kind in (1, 2, 5):
            def connect():
                s = socket.socket(socket.AF_UNIX, kind)
                s.connect(path)
            attempt("%r, type %d" % (path, kind), connect)
    attempt("listen", lambda: socket.socket(socket.AF_UNIX).bind(TOKEN + "-socket"))
    attempt("listen abstract", lambda: socket.socket(socket.AF_UNIX).bind("\0" + TOKEN))
`),

	inBoth("pairs that reach elsewhere", "makes connected pairs of kinds that can be sent to other addresses, and reconnects those it may have",
		"a pair stays a pair", `
def attack():
    import socket
    for kind in (1, 2, 5):
        def pair():
            a, b = socket.socketpair(socket.AF_UNIX, kind)
            b.setblocking(False)
            for path in (FACTS["dgram"], "\0" + FACTS["abstract"], FACTS["unix"]):
                for act in (lambda: a.sendto(b"x", path), lambda: a.connect(path), lambda: (a.shutdown(2), a.connect(path)), lambda: a.connect_ex("") and a.connect(path)):
                    try: act()
                    except OSError: continue
                    try: b.recv(1)  # its own other end got it
                    except OSError: return path
            raise OSError("stays a pair")
        attempt("pair of type %d" % kind, pair)
    for family in (2, 10, 16, 17, 40, 30):
        attempt("pair of family %d" % family, lambda: socket.socketpair(family, 1))
    s = socket.socket(fileno=os.dup(3)) if os.path.exists("/proc/self/fd/3") and "socket" in os.readlink("/proc/self/fd/3") else None
    if s: attempt("its channel elsewhere", s.connect, FACTS["unix"])
`),

	script("the shell's own network", "uses the shell's /dev/tcp, and tools that may be there",
		"none of it leads out", `
def attack():
    import subprocess
    port = FACTS["tcp4"]
    for command in ("exec 3<>/dev/tcp/127.0.0.1/%d" % port, "echo x >/dev/udp/127.0.0.1/%d" % FACTS["udp4"], "curl -m 2 -s http://127.0.0.1:%d/" % port, "wget -T 2 -q -O- http://127.0.0.1:%d/" % port,
                    "nc -w 2 127.0.0.1 %d </dev/null" % port, "ping -c 1 -W 1 127.0.0.1", "ip link add rt0 type dummy", "ssh -o ConnectTimeout=2 -p %d 127.0.0.1 true" % port):
        tried.append(command)
        try: p = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, timeout=3)
        except subprocess.TimeoutExpired: continue
        if p.returncode == 0: through.append("%s: %r" % (command, p.stdout[:100]))
`),

	script("networks that others made", "looks for network interfaces beside the loopback, addresses, routes and sockets of others",
		"in a network namespace of its own there is nothing", `
def attack():
    import socket
    tried.append("interfaces")
    names = [l.split(":")[0].strip() for l in open("/proc/net/dev").read().split("\n")[2:] if l]
    own = os.readlink("/proc/self/ns/net")
    tables = "".join(open("/proc/net/" + t).read() for t in ("tcp", "udp") if os.path.exists("/proc/net/" + t))
    if ("%04X" % FACTS["tcp4"]) in tables:
        global missing
        missing = "no network namespace is in force here"
        return
    saw("interfaces", set(names) - {"lo"}, repr(names))
`),
}
