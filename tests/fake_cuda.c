/* A CUDA driver of three pretended GPUs that obeys CUDA_VISIBLE_DEVICES, to test what talks to the real one. */
#include <stdlib.h>
#include <string.h>

static int shown[3];

int cuInit(unsigned flags)
{
    const char *broken = getenv("FAKE_CUDA_ERROR"), *mask = getenv("CUDA_VISIBLE_DEVICES");
    int count = 0;
    if (broken)
        return atoi(broken);
    for (int i = 0; i < 3; i++)
        shown[i] = -1;
    if (!mask)
        mask = "0,1,2";
    for (; *mask >= '0' && *mask <= '2'; mask += 2) {
        shown[count++] = *mask - '0';
        if (mask[1] != ',')
            break;
    }
    return count ? 0 : 100;
}

int cuDeviceGetCount(int *count)
{
    for (*count = 0; *count < 3 && shown[*count] >= 0; ++*count) {}
    return 0;
}

int cuDeviceGet(int *device, int index)
{
    *device = shown[index];
    return 0;
}

int cuDeviceGetName(char *name, int length, int device)
{
    strncpy(name, device == 2 ? "Old One" : "New One", length);
    return 0;
}

int cuDeviceGetUuid_v2(char *uuid, int device)
{
    memset(uuid, 16 * device + device, 16);
    return 0;
}

int cuDeviceGetUuid(char *uuid, int device) { return 1; }

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    *bytes = 141ull << 30;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    *value = attribute == 75 ? (device == 2 ? 7 : 9) : 0;
    return 0;
}
