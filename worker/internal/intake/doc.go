// Package intake takes jobs from the queues and sees each to its end: pull,
// run, reply, ack, in this order, with beats while it lasts. It never pulls
// more than there are free slots, so that no job waits behind a busy worker
// while another one is idle. It knows nothing of what a job does.
//
// Every accepted job ends in exactly one reply or one redelivery.
package intake
