package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// inVM is the value of vmVariable with which this program finds itself inside the virtual machine.
const (
	vmVariable = "MAINSTAY_VM"
	inVM       = "inside"
)

// TestVM boots a virtual machine with Debian's kernel and nothing else, to see what another machine's cgroups, clock and process 1
// would not let us see, and runs the scripts of testdata/vm there. It takes minutes; make vm asks for it.
func TestVM(t *testing.T) {
	if os.Getenv(vmVariable) == inVM || os.Getenv(vmVariable) == "" && os.Getenv("MAINSTAY_SOAK") == "" {
		t.Skip("make vm runs it")
	}
	missing := func(format string, args ...any) {
		if t.Helper(); os.Getenv("CI") == "true" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		missing("QEMU is missing: run testdata/vm/install")
	}
	kernels, err := filepath.Glob("/boot/vmlinuz-*cloud-amd64")
	if err != nil || len(kernels) == 0 {
		missing("Debian's kernel for clouds is missing: run testdata/vm/install")
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		missing("busybox is missing: run testdata/vm/install")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "mainstay.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	image := filepath.Join(dir, "initramfs")
	writeImage(t, image, program)
	for name, words := range map[string]string{"scripts": "", "process 1": "pid1"} {
		t.Run(name, func(t *testing.T) { boot(t, qemu, slices.Max(kernels), image, words) })
	}
}

// boot runs a virtual machine to its end.
func boot(t *testing.T, qemu, kernel, image, words string) {
	accelerator := "tcg" // which emulates, anywhere
	if cpu, err := os.ReadFile("/proc/cpuinfo"); err == nil && (bytes.Contains(cpu, []byte(" vmx ")) || bytes.Contains(cpu, []byte(" svm "))) {
		if kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			kvm.Close()
			accelerator = "kvm"
		}
	}
	t.Log("accelerator:", accelerator)
	cmd := exec.CommandContext(t.Context(), qemu, "-accel", accelerator, "-cpu", "max", "-smp", "2", "-m", "2048", "-nographic", "-no-reboot",
		"-nic", "none", "-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1 "+words)
	var said bytes.Buffer
	cmd.Stdout = &said
	if testing.Verbose() {
		cmd.Stdout = io.MultiWriter(&said, os.Stdout)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		t.Errorf("QEMU: %v", err)
	}
	if !bytes.Contains(said.Bytes(), []byte("vm: status 0")) {
		t.Errorf("the virtual machine did not say that all is well:\n%s", said.Bytes())
	}
}

// writeImage writes the file system of the virtual machine in the format that the kernel reads (buffer format of initramfs in the
// kernel's documentation, "newc").
func writeImage(t *testing.T, path, program string) {
	var image bytes.Buffer
	inode := 0
	add := func(name string, mode int, content []byte) {
		inode++
		fmt.Fprintf(&image, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		pad := func() { image.Write(make([]byte, -image.Len()&3)) }
		image.WriteString(name + "\x00")
		pad()
		image.Write(content)
		pad()
	}
	file := func(name, from string, mode int) {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		add(name, 0o100000|mode, content)
	}
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "tmp", "src", "src/testdata", "src/testdata/vm", "src/testdata/vm/pid1"} {
		add(dir, 0o40755, nil)
	}
	file("init", "testdata/vm/init", 0o755)
	file("bin/busybox", "/bin/busybox", 0o755)
	file("bin/mainstay.test", program, 0o755)
	for _, name := range []string{"mainstay", "service", "get", "load", "notify"} {
		add("bin/"+name, 0o120777, []byte("mainstay.test"))
	}
	add("etc/passwd", 0o100644, []byte("root:x:0:0::/tmp:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/sh\n"))
	add("etc/group", 0o100644, []byte("root:x:0:\nnobody:x:65534:\n"))
	for _, pattern := range []string{"testdata/vm/*.txtar", "testdata/vm/pid1/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			file("src/"+f, f, 0o644)
		}
	}
	add("TRAILER!!!", 0, nil)
	if err := os.WriteFile(path, image.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestInVM runs the scripts of testdata/vm where TestVM has booted to.
func TestInVM(t *testing.T) {
	if os.Getenv(vmVariable) != inVM {
		t.Skip("TestVM runs it")
	}
	for name, dir := range map[string]string{"vm": "testdata/vm", "pid1": "testdata/vm/pid1"} {
		t.Run(name, func(t *testing.T) {
			params := scripts(scriptRoot(t))
			params.Dir = dir
			testscript.Run(t, params)
		})
	}
}
