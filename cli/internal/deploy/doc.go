// Package deploy holds deploy/ and docker-compose.yml against the program: the
// metrics they name, the settings they make, the versions they pull, and the
// pages that alerts point to. It has only tests.
package deploy
