package main

import (
	"strings"
	"testing"
	"time"
)

// TestDescriptorLimit lets more clients come than there may be open files: idle ones must go so that others are served.
func TestDescriptorLimit(t *testing.T) {
	for _, engine := range engines {
		t.Run(engine, func(t *testing.T) {
			d := startDaemon(t, strings.Replace(patientTopology, "ENGINE", engine, 1), 256)
			files := d.descriptors()
			for _, used := range []bool{false, true} {
				idle := openIdle(t, d.proxy, 600, used)
				t.Logf("%d files are open", d.descriptors())
				v := startVisitor(d)
				rested := d.worked()
				<-time.After(2 * time.Second)
				t.Logf("serving others took %s in two seconds", d.worked()-rested)
				v.end(t, 2*time.Second)
				rested = d.worked()
				<-time.After(time.Second)
				if worked := d.worked() - rested; worked > 250*time.Millisecond {
					t.Errorf("having no files left took %s in a second", worked)
				}
				closeAll(idle)
			}
			if !poll(func() bool { return d.descriptors() <= files+8 }) {
				t.Errorf("of %d files %d are open in the end", files, d.descriptors())
			}
			v := startVisitor(d)
			<-time.After(time.Second)
			v.end(t, 2*time.Second)
		})
	}
}
