package localfleet

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// startNATS starts n servers, which are a cluster if they are several. The
// settings are those of deploy/nats and of the embedded server.
func (f *Fleet) startNATS(ctx context.Context, binaries string, n int) error {
	type addresses struct{ client, cluster, monitor string }
	all := make([]addresses, n)
	var routes, urls []string
	for i := range all {
		a := &all[i]
		for _, addr := range []*string{&a.client, &a.cluster, &a.monitor} {
			var err error
			if *addr, err = freeAddress(); err != nil {
				return err
			}
		}
		routes = append(routes, fmt.Sprintf("%q", "nats://"+a.cluster))
		urls = append(urls, "nats://"+a.client)
		f.NATSMonitors = append(f.NATSMonitors, "http://"+a.monitor)
	}
	f.NATS, f.replicas = strings.Join(urls, ","), n
	for i, a := range all {
		conf := filepath.Join(f.dir, fmt.Sprintf("nats-%d.conf", i))
		text := fmt.Appendf(nil, "server_name: nats-%d\nlisten: %q\nhttp: %q\nmax_payload: 16MB\nmax_pending: 128MB\njetstream { store_dir: %q, sync_interval: \"1s\" }\nauthorization { user: %s, password: %s }\n",
			i, a.client, a.monitor, filepath.Join(f.dir, fmt.Sprintf("nats-%d", i)), User, Password)
		if n > 1 {
			text = fmt.Appendf(text, "cluster { name: local, listen: %q, routes: [%s] }\n", a.cluster, strings.Join(routes, ", "))
		}
		if err := os.WriteFile(conf, text, 0o600); err != nil {
			return err
		}
		p, err := f.run(binaries, "nats-server", nil, "-c", conf)
		if err != nil {
			return err
		}
		if err := f.await(ctx, p, "NATS listens", func() bool {
			c, err := net.Dial("tcp", a.client)
			if err == nil {
				c.Close()
			}
			return err == nil
		}); err != nil {
			return err
		}
	}
	return nil
}
