/*
 * regset.so is preloaded into the user-mode kernel by scripts/uml.sh, for CPUs whose state is larger than its buffer for it.
 *
 * The kernel of Debian 12 keeps 2,696 bytes of each process's extended state, which is what there is up to AVX-512. Where the CPU has AMX as
 * well the host has 11,008. Reading is cut short by the host, and does no harm: no program under test uses AMX. But the host takes a
 * state only as a whole, with EFAULT for less; then the user-mode kernel panics before its first process. So the rest is filled in with
 * what the process has.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long ptrace_fn(int request, pid_t pid, void *addr, void *data);

static ptrace_fn *next;

/* Not on the stack: that of the user-mode kernel is 16 KiB. It has one CPU and does not change tasks within a call. */
static char whole[1 << 16] __attribute__((aligned(64)));

__attribute__((constructor)) static void resolve(void)
{
	next = (ptrace_fn *)dlsym(RTLD_NEXT, "ptrace");
}

long ptrace(enum __ptrace_request request, ...)
{
	__builtin_va_list args;
	__builtin_va_start(args, request);
	pid_t pid = __builtin_va_arg(args, pid_t);
	void *addr = __builtin_va_arg(args, void *);
	void *data = __builtin_va_arg(args, void *);
	__builtin_va_end(args);

	struct iovec *given = data;
	struct iovec all = {whole, sizeof whole};
	if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE && next(PTRACE_GETREGSET, pid, addr, &all) == 0 &&
	    all.iov_len > given->iov_len) {
		memcpy(whole, given->iov_base, given->iov_len);
		data = &all;
	}
	return next(request, pid, addr, data);
}
