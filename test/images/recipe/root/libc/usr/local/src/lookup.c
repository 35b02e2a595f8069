#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <arpa/inet.h>
#include <netinet/in.h>

/* Prints the addresses of each name as the C library of this program finds them, or why there are none. */
int main(int argc, char **argv)
{
	char text[INET6_ADDRSTRLEN];
	int i;

	for (i = 1; i < argc; i++) {
		struct addrinfo hints, *all, *a;
		int err;

		memset(&hints, 0, sizeof hints);
		hints.ai_socktype = SOCK_STREAM;
		err = getaddrinfo(argv[i], NULL, &hints, &all);
		printf("%s", argv[i]);
		if (err) {
			printf(" %s", err == EAI_NONAME ? "none" : gai_strerror(err));
		} else {
			for (a = all; a; a = a->ai_next) {
				const void *addr = a->ai_family == AF_INET
					? (const void *)&((struct sockaddr_in *)a->ai_addr)->sin_addr
					: (const void *)&((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
				printf(" %s", inet_ntop(a->ai_family, addr, text, sizeof text));
			}
			freeaddrinfo(all);
		}
		printf("\n");
	}
	return 0;
}
