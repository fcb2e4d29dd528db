/* lookup prints the addresses of names, as the C library's resolver finds them. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct addrinfo hints, *list;
		memset(&hints, 0, sizeof hints);
		hints.ai_socktype = SOCK_STREAM;
		if (getaddrinfo(argv[i], 0, &hints, &list)) {
			printf("%s error\n", argv[i]);
			continue;
		}
		for (; list; list = list->ai_next) {
			char host[64];
			getnameinfo(list->ai_addr, list->ai_addrlen, host, sizeof host, 0, 0, NI_NUMERICHOST);
			printf("%s %s\n", argv[i], host);
		}
	}
	return 0;
}
