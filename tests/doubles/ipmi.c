/* The kernel's IPMI device, preloaded: a FIFO at IPMI_DOUBLE's place answers the calls of <linux/ipmi.h> as a BMC would.

   The answer to DCMI's Get Power Reading is in the file that IPMI_DOUBLE_ANSWER names, as raw bytes from the completion
   code on; an empty one is no answer. Before it comes one with another message id, as after a question timed out. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/ipmi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

static long asked;
static int answers;

static int take(struct ipmi_req *request)
{
	static const unsigned char power[] = {0xdc, 1, 0, 0};
	struct ipmi_system_interface_addr *to = (void *)request->addr;

	if (request->addr_len != sizeof(*to) || to->addr_type != IPMI_SYSTEM_INTERFACE_ADDR_TYPE ||
	    to->channel != IPMI_BMC_CHANNEL || request->msg.netfn != 0x2c || request->msg.cmd != 2 ||
	    request->msg.data_len != sizeof(power) || memcmp(request->msg.data, power, sizeof(power))) {
		errno = EINVAL;
		return -1;
	}
	asked = request->msgid;
	return 0;
}

static int give(struct ipmi_recv *received, const unsigned char *answer, size_t length)
{
	if (received->addr_len < sizeof(struct ipmi_addr) || received->msg.data_len < length) {
		errno = EMSGSIZE;
		return -1;
	}
	received->recv_type = IPMI_RESPONSE_RECV_TYPE;
	received->msgid = answers++ % 2 ? asked : asked - 1;
	received->msg.netfn = 0x2d;
	received->msg.cmd = 2;
	received->msg.data_len = length;
	memcpy(received->msg.data, answer, length);
	return 0;
}

int ioctl(int fd, unsigned long call, ...)
{
	static int (*real)(int, unsigned long, ...);
	unsigned char answer[64], byte;
	size_t length = 0;
	va_list list;
	void *value;
	FILE *file;

	va_start(list, call);
	value = va_arg(list, void *);
	va_end(list);
	if (call == IPMICTL_SEND_COMMAND || call == IPMICTL_RECEIVE_MSG_TRUNC) {
		file = fopen(getenv("IPMI_DOUBLE_ANSWER"), "rb");
		length = fread(answer, 1, sizeof(answer), file);
		fclose(file);
	}
	if (call == IPMICTL_SEND_COMMAND) {
		if (take(value))
			return -1;
		return !length || write(fd, "xx", 2) == 2 ? 0 : -1; /* two messages wait: poll tells */
	}
	if (call == IPMICTL_RECEIVE_MSG_TRUNC)
		return read(fd, &byte, 1) == 1 ? give(value, answer, length) : -1;
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ioctl");
	return real(fd, call, value);
}
