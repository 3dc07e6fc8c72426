#include "common/base.h"

#include "common/address.h"

#include <netinet/in.h>
#include <sys/socket.h>

struct net {
    uint32_t address;
    unsigned bits;
};

/* RFC 6890 and its successors: what is not global. */
static const struct net closed[] = {
    {0x00000000, 8},  /* this network */
    {0x0A000000, 8},  /* private */
    {0x64400000, 10}, /* shared by carriers */
    {0x7F000000, 8},  /* loopback */
    {0xA9FE0000, 16}, /* link-local */
    {0xAC100000, 12}, /* private */
    {0xC0000000, 24}, /* protocol assignments */
    {0xC0000200, 24}, /* documentation */
    {0xC0586300, 24}, /* relays of 6to4 */
    {0xC0A80000, 16}, /* private */
    {0xC6120000, 15}, /* benchmarks */
    {0xC6336400, 24}, /* documentation */
    {0xCB007100, 24}, /* documentation */
    {0xE0000000, 3},  /* multicast, reserved, broadcast */
};

static bool is_public_4(uint32_t address)
{
    for (size_t i = 0; i < ARRAY_LEN(closed); i++) {
        if ((address ^ closed[i].address) >> (32 - closed[i].bits) == 0) {
            return false;
        }
    }
    return true;
}

static uint32_t read_4(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool is_public_6(const uint8_t b[16])
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
    static const uint8_t translated[12] = {0x00, 0x64, 0xFF, 0x9B};
    if (memcmp(b, mapped, sizeof(mapped)) == 0 || memcmp(b, translated, sizeof(translated)) == 0) {
        return is_public_4(read_4(b + 12));
    }
    if (b[0] == 0x20 && b[1] == 0x02) { /* 6to4 */
        return is_public_4(read_4(b + 2));
    }
    bool tunnel = b[0] == 0x20 && b[1] == 0x01 && b[2] < 0x02; /* Teredo and other assignments */
    bool documentation = b[0] == 0x20 && b[1] == 0x01 && b[2] == 0x0D && b[3] == 0xB8;
    return (b[0] & 0xE0) == 0x20 && !tunnel && !documentation; /* 2000::/3 is what is given out */
}

bool address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof(in));
        return is_public_4(ntohl(in.sin_addr.s_addr));
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof(in6));
        return is_public_6(in6.sin6_addr.s6_addr);
    }
    return false;
}
